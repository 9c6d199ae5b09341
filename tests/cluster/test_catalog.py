"""The data that ships, and what is said about cluster files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopoiesis.cluster import Pool, Storage, catalog
from autopoiesis.errors import ScenarioError

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
        assert all(pool.price_per_hour == catalog.gpus()[pool.gpu].price_per_hour for pool in cluster.pools)
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
        (GOOD + "price_per_hour = -1.0\n", "field 'price_per_hour' must not be negative"),
        (GOOD + "price_per_hour = nan\n", "field 'price_per_hour' must not be negative"),
        (GOOD + "start_s_p50 = 9.0\nstart_s_p90 = 3.0\n", "field 'start_s_p90' must be finite and at least"),
        (GOOD + "start_s_p50 = 0.0\nstart_s_p90 = inf\n", "field 'start_s_p90'"),
        (GOOD + GOOD, "two pools share one name"),
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


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.toml: cannot be read"):
        catalog.cluster(str(tmp_path / "nowhere.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"binary\.toml: is not a text file.*add a \[\[pool\]\] table as in"):
        catalog.cluster(str(tmp_path / "binary.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ScenarioError, match=r"folder\.toml: cannot be read"):
        catalog.cluster(str(tmp_path / "folder.toml"))


def test_a_wrong_value_within_a_table_is_named_by_its_path() -> None:
    pool = {"name": "a", "gpu": "h100", "gpus_per_node": 8, "minimum": 8, "maximum": 8, "price_per_hour": 1}
    for wrong, message in [
        ({**pool, "spot": 3}, "here: field 'spot' must be a table, not a whole number"),
        ({**pool, "spot": {}}, "here: field 'spot.losses_per_hour' is missing; add it"),
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
