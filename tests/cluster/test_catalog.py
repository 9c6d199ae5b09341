"""The data that ships, and what is said about cluster files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopoiesis.cluster import Failures, Pool, SpotHistory, SpotLosses, SpotRegime, Storage, catalog
from autopoiesis.errors import ScenarioError, TraceError

GOOD = """
[[pool]]
name = "a"
gpu = "h100"
gpus_per_node = 8
minimum = 8
maximum = 16
"""


def test_everything_that_ships_can_be_read() -> None:
    assert {"demo-8", "homogeneous-32", "heterogeneous-64", "elastic-a100"} <= set(catalog.cluster_names())
    for name in catalog.cluster_names():
        cluster = catalog.cluster(name)
        assert cluster.name == name
        assert set(cluster.gpus) == {pool.gpu for pool in cluster.pools}
        assert all(pool.price_per_hour <= catalog.gpus()[pool.gpu].price_per_hour for pool in cluster.pools)
    assert all(gpu.flops > 1e13 and gpu.memory_bytes > 1e10 for gpu in catalog.gpus().values())
    assert all(model.heads % model.kv_heads == 0 for model in catalog.models().values())


def test_the_clusters_have_the_gpus_of_their_names() -> None:
    sizes = {name: sum(catalog.cluster(name).maximum.values()) for name in catalog.cluster_names()}
    assert (sizes["demo-8"], sizes["homogeneous-32"], sizes["heterogeneous-64"]) == (8, 32, 64)
    (pool,) = catalog.cluster("elastic-a100").pools
    assert (pool.minimum, pool.maximum, pool.elastic) == (4, 32, True)
    assert pool.spot is not None


def test_a_users_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    cluster = catalog.cluster(str(path))
    assert cluster.name == "mine"
    assert cluster.pools[0].price_per_hour == catalog.gpus()["h100"].price_per_hour
    path.write_text(GOOD + "price_per_hour = 9.5\n")
    assert catalog.cluster(str(path)).pools[0].price_per_hour == 9.5


def test_a_pool_says_where_its_nodes_read_weights_from(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    cluster = catalog.cluster(str(path))
    assert cluster.object_store_bandwidth == 1e9
    assert cluster.pools[0].storage == Storage("nvme-gen3", 256e9, "object-store", "none")
    path.write_text(
        "object_store_bandwidth = 5e9\n" + GOOD + '[pool.storage]\ndrive = "sata"\njoining = "drive"\npeers = "node"\n'
    )
    cluster = catalog.cluster(str(path))
    assert cluster.object_store_bandwidth == 5e9
    assert cluster.pools[0].storage == Storage("sata", 256e9, "drive", "node")
    assert cluster.pools[0].storage.drive_bandwidth == 0.55e9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty; add a \[\[pool\]\] table as in data/clusters/demo-8\.toml"),
        ("pool = 3", r"holds \[\[pool\]\] tables"),
        ("[[pool]", "not valid TOML"),
        (GOOD + "[more]\n", "nothing else"),
        (GOOD.replace("h100", "h10O"), "unknown GPU 'h10O'; did you mean h100"),
        (GOOD.replace("minimum", "minimun"), "unknown field 'minimun'; did you mean minimum"),
        (GOOD.replace("minimum = 8\n", ""), "pool 1: field 'minimum' is missing; add it"),
        (GOOD.replace("= 16", '= "16"'), "pool 1: field 'maximum' must be a whole number, not text$"),
        (GOOD.replace("minimum = 8", "minimum = 4"), "pool 'a': field 'minimum' must be a multiple of gpus_per_node"),
        (GOOD.replace("minimum = 8", "minimum = 24"), "field 'minimum' must lie between 0 and maximum"),
        (GOOD.replace("node = 8", "node = 0"), "field 'gpus_per_node' must be at least 1"),
        (GOOD.replace("minimum = 8\nmaximum = 16", "minimum = 0\nmaximum = 0"), "at least one node"),
        (GOOD + "price_per_hour = -1.0\n", "field 'price_per_hour' must be US dollars"),
        (GOOD + "price_per_hour = nan\n", "field 'price_per_hour' must be US dollars"),
        (GOOD + "start_s_p50 = 9.0\nstart_s_p90 = 3.0\n", "field 'start_s_p90' must be finite and at least"),
        (GOOD + "start_s_p50 = 0.0\nstart_s_p90 = inf\n", "field 'start_s_p90'"),
        (GOOD + GOOD, "two pools share one name"),
        (GOOD + "spot = 3\n", "pool 1: field 'spot': must be a table, not a whole number"),
        (GOOD + "spot = {}\n", "pool 1: field 'spot': says nothing of losses; give regime, history or losses_per_hour"),
        (GOOD + "spot = {regime = 'scarse'}\n", "field 'spot.regime': unknown regime 'scarse'; did you mean scarce"),
        (GOOD + "spot = {regime = 3}\n", "pool 1: field 'spot': field 'regime' must be text, not a whole number"),
        (GOOD + "spot = {regime = 'scarce', notice = 3}\n", "unknown field 'notice'; did you mean notice_s"),
        (
            GOOD + "spot = {history = 'x.csv', notice_s = -3}\n",
            "field 'spot.notice_s' must be seconds, from 0 to 86400",
        ),
        (
            GOOD + "[pool.failures]\ngpu_mtbf_h = 0\nrepair_s = 1\n",
            "field 'failures.gpu_mtbf_h' must be a finite number of hours, at least 0.01",
        ),
        (GOOD + "[pool.failures]\ngpu_mtbf_h = 1\n", "field 'failures': field 'repair_s' is missing; add it"),
        (
            GOOD + "start_delay = 'alibaba'\n",
            "field 'start_delay' unknown distribution 'alibaba'; did you mean alibaba-2025",
        ),
        (
            GOOD + "start_delay = 'alibaba-2025'\nstart_s_p50 = 3.0\nstart_s_p90 = 9\n",
            "field 'start_delay' has quantiles",
        ),
        (GOOD + "[pool.spot]\nlosses_per_hour = 1.0\n", "field 'spot': field 'nodes_per_loss' is missing; add it"),
        (GOOD + "[pool.spot]\nlosses_per_hour = 1\nnodes_per_loss = 1\nnotice_s = 1\nrecovery_s = 1\nx = 1\n", "'x'"),
        (
            GOOD + "[pool.spot]\nlosses_per_hour = -1.0\nnodes_per_loss = 1\nnotice_s = 1\nrecovery_s = 1\n",
            "field 'spot.losses_per_hour'",
        ),
        (
            GOOD + "[pool.spot]\nlosses_per_hour = inf\nnodes_per_loss = 1\nnotice_s = 1\nrecovery_s = 1\n",
            "field 'spot.losses_per_hour'",
        ),
        (
            GOOD + '[pool.storage]\ndrive = "nvme"\n',
            "pool 1: .*'storage.drive': unknown value 'nvme'; did you mean",
        ),
        (GOOD + "[pool.storage]\ndrive = 7\n", "field 'storage': field 'drive' must be text, not a whole number"),
        (
            GOOD + '[pool.storage]\njoining = "tape"\n',
            "'storage.joining': unknown value 'tape'; there are: drive",
        ),
        (
            GOOD + '[pool.storage]\npeers = "rack"\n',
            "'storage.peers': unknown value 'rack'; there are: cluster",
        ),
        (GOOD + "[pool.storage]\npage_cache_bytes = -1\n", "'storage.page_cache_bytes' must be a finite number"),
        (GOOD + "[pool.storage]\npage_cache_bytes = inf\n", "'storage.page_cache_bytes' must be a finite number"),
        (GOOD + "[pool.storage]\nraid = 5\n", "field 'storage': unknown field 'raid'"),
        ("object_store_bandwidth = 0\n" + GOOD, r"wrong\.toml: field 'object_store_bandwidth' must be a positive"),
        ('object_store_bandwidth = "1"\n' + GOOD, "field 'object_store_bandwidth' must be a number, not text"),
    ],
)
def test_a_wrong_file_is_answered_with_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message) as error:
        catalog.cluster(str(path))
    assert "wrong.toml" in str(error.value)


def test_a_pool_names_its_market_in_one_of_three_forms(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "a.csv").write_text("t_s,nodes\n0,4\n900,2\n1800,2\n")
    for text, spot in [
        ("", None),
        ("spot = {regime = 'scarce'}", SpotRegime("scarce", 120.0)),
        ("spot = {regime = 'contended', notice_s = 30}", SpotRegime("contended", 30.0)),
        ("spot = {history = 'recorded/a.csv', notice_s = 30}", SpotHistory((0.0, 900.0, 1800.0), (4, 2, 2), 30.0)),
        (
            "spot = {losses_per_hour = 1, nodes_per_loss = 2, notice_s = 3, recovery_s = 4}",
            SpotLosses(losses_per_hour=1, nodes_per_loss=2, notice_s=3, recovery_s=4),
        ),
    ]:
        path.write_text(GOOD + text)
        assert catalog.cluster(str(path)).pools[0].spot == spot


def test_a_wrong_history_is_answered_with_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + "spot = {history = 'gone.csv'}")
    with pytest.raises(TraceError, match=r"gone\.csv: no such file"):
        catalog.cluster(str(path))


def test_a_pool_can_have_failures_and_a_named_delay(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + "start_delay = 'alibaba-2025'\nfailures = {gpu_mtbf_h = 50000, repair_s = 3600}")
    (pool,) = catalog.cluster(str(path)).pools
    assert (pool.start_s_p50, pool.start_s_p90, pool.failures) == (0.0, 134.0, Failures(50_000, 3600))


# --- the user's folder ---------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own data."""
    for kind in ("gpus", "models", "clusters"):
        (tmp_path / f"{kind}.d").mkdir()
    monkeypatch.setenv("AUTOPOIESIS_DATA", str(tmp_path))
    return tmp_path


GPU = """
flops = 100e12
memory_bandwidth = 1e12
memory_bytes = 40e9
link_bandwidth = 32e9
network_bandwidth = 25e9
price_per_hour = 0.5
"""


def test_a_users_gpus_models_and_clusters_join_those_that_ship(own: Path) -> None:
    (own / "gpus.d" / "a.toml").write_text(f"[mine]{GPU}")
    (own / "models.d" / "a.toml").write_text(
        "[tiny]\nlayers = 2\nhidden = 64\nffn = 128\nheads = 4\nkv_heads = 2\nhead_dim = 16\n"
        "vocabulary = 100\ncontext = 512\n"
    )
    (own / "clusters.d" / "home.toml").write_text(GOOD.replace("h100", "mine"))
    assert catalog.gpu("mine").flops == 100e12
    assert catalog.model("tiny").layers == 2
    assert "h100" in catalog.gpus()
    assert "home" in catalog.cluster_names()
    assert catalog.cluster("home").gpus == {"mine": catalog.gpu("mine")}


def test_an_entry_of_the_same_name_takes_the_place_of_the_one_that_ships(own: Path) -> None:
    (own / "gpus.d" / "prices.toml").write_text(f"[h100]{GPU}")
    (own / "clusters.d" / "demo-8.toml").write_text(GOOD)
    assert catalog.gpus()["h100"].price_per_hour == 0.5
    assert catalog.cluster("demo-8").pools[0].maximum == 16
    assert catalog.cluster("homogeneous-32").pools[0].price_per_hour == 0.5


def test_a_folder_of_configurations_is_looked_into_if_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOPOIESIS_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert catalog.user_folder() == tmp_path / "autopoiesis"
    assert "h100" in catalog.gpus()
    (tmp_path / "autopoiesis" / "clusters.d").mkdir(parents=True)
    (tmp_path / "autopoiesis" / "clusters.d" / "home.toml").write_text(GOOD)
    assert catalog.cluster("home").name == "home"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine]\nflops = 1\n", "a.toml: mine: field 'memory_bandwidth' is missing; add it"),
        (f"[mine]{GPU}".replace("100e12", "-1"), "a.toml: mine: field 'flops' must be a positive, finite number"),
        (f"[mine]{GPU}".replace("0.5", "nan"), "a.toml: mine: field 'price_per_hour' must be US dollars"),
        (f"[mine]{GPU}flop = 1", "a.toml: mine: unknown field 'flop'; did you mean flops"),
        (f"[mine]{GPU}name = 'x'", "a.toml: mine: field 'name' is the name of the table; remove it"),
        ("mine = 3", "a.toml: mine: must be a table"),
        ("[mine", "a.toml: not valid TOML"),
    ],
)
def test_a_wrong_entry_is_answered_with_file_and_field(own: Path, text: str, message: str) -> None:
    (own / "gpus.d" / "a.toml").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        catalog.gpus()
    assert message in str(caught.value)


def test_two_files_must_not_say_the_same(own: Path) -> None:
    for name in ("a", "b"):
        (own / "gpus.d" / f"{name}.toml").write_text(f"[mine]{GPU}")
    with pytest.raises(ScenarioError, match=r"b\.toml: mine: is in a\.toml as well; keep one"):
        catalog.gpus()


def test_a_folder_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPOIESIS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ScenarioError, match=r"AUTOPOIESIS_DATA: .* is no folder; create it"):
        catalog.gpus()


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.toml: cannot be read"):
        catalog.cluster(str(tmp_path / "nowhere.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"binary\.toml: line 1: not UTF-8; save the file as UTF-8"):
        catalog.cluster(str(tmp_path / "binary.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ScenarioError, match=r"folder\.toml: cannot be read"):
        catalog.cluster(str(tmp_path / "folder.toml"))


def test_a_wrong_value_within_a_table_is_named_by_its_path() -> None:
    pool = {"name": "a", "gpu": "h100", "gpus_per_node": 8, "minimum": 8, "maximum": 8, "price_per_hour": 1}
    for wrong, message in [
        ({**pool, "failures": 3}, "here: field 'failures' must be a table, not a whole number"),
        ({**pool, "failures": {}}, "here: field 'failures.gpu_mtbf_h' is missing; add it"),
        ({**pool, "price_per_hour": [1]}, "here: field 'price_per_hour' must be a number, not a list"),
        (3, "here: must be a table, not a whole number"),
    ]:
        with pytest.raises(ScenarioError) as error:
            catalog.convert(wrong, Pool, "here")
        assert str(error.value) == message


def test_an_unknown_name_gets_the_near_ones_and_the_way_out() -> None:
    with pytest.raises(ScenarioError, match=r"unknown cluster 'homogenous-32'; did you mean homogeneous-32.*\.toml"):
        catalog.cluster("homogenous-32")
    with pytest.raises(ScenarioError, match="unknown model 'llama-8b'"):
        catalog.model("llama-8b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=" + "[" * 5000, "nested too deeply"),
        ("x=" + "1" * 5000, "thousands of digits"),
        (" " * (catalog.FILE_BYTES + 1), "larger than"),
        ('["\\u001b[31mx"]\nflops = 1e12', "a name is of letters, digits"),
    ],
)
def test_a_hostile_file_of_a_users_own_is_answered_in_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpus.d").mkdir()
    (tmp_path / "gpus.d" / "mine.toml").write_text(text)
    monkeypatch.setenv("AUTOPOIESIS_DATA", str(tmp_path))
    with pytest.raises(ScenarioError, match=message) as failure:
        catalog.gpus()
    assert "\n" not in str(failure.value)
