"""Starts: their stages, the source that serves each, and what starts beside one another cost each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster import Cluster, Hardware, Pool, Storage, catalog
from autopoiesis.cost import CostModel, Source, Stage, Starts, StartTimes, Up, start_times

SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
HARDWARE = Hardware(catalog.gpus(), catalog.models())
COST = CostModel(HARDWARE)
BYTES = COST.weight_bytes(SMALL)
BESIDE_S = 12.0 + 10.0 + 5.0
"""Everything but the load."""


def with_storage(storage: Storage) -> CostModel:
    return replace(COST, start=StartTimes(storage={"h100": storage}))


UNCACHED = with_storage(Storage(page_cache_bytes=0))


def gpus(node: int, *indices: int) -> tuple[tuple[str, int], ...]:
    return tuple((f"h100/{node}", index) for index in indices)


def all_up(starts: Starts, until_s: float = math.inf) -> dict[int, Up]:
    """Everything that comes up until then, by id."""
    found: dict[int, Up] = {}
    while starts.due_s <= until_s and starts.due_s < math.inf:
        found |= {up.id: up for up in starts.advance(starts.due_s)}
    return found


# --- stages --------------------------------------------------------------------------------------------------------


def test_a_start_is_a_process_then_weights_then_graphs_and_warm_up() -> None:
    starts = Starts(COST)
    starts.begin(7, SMALL, "h100", gpus(0, 0), 100.0)
    seen = []
    while starts.due_s < math.inf:
        seen.append((starts.stage(7), starts.due_s))
        up = starts.advance(starts.due_s)
    assert seen == [
        (Stage.PROCESS, 112.0),
        (Stage.LOADING, pytest.approx(112.0 + BYTES / 3.5e9)),
        (Stage.WARMING, pytest.approx(127.0 + BYTES / 3.5e9)),
    ]
    assert [entry.id for entry in up] == [7]
    assert up[0][1:] == pytest.approx((COST.start_s(SMALL), COST.start_s(SMALL)))
    with pytest.raises(KeyError):
        starts.stage(7)


def test_a_slow_start_is_slow_in_every_stage_and_expected_to_take_the_usual_time() -> None:
    starts = Starts(COST.with_slow({}, 1.5))
    starts.begin(0, SMALL, "h100", gpus(0, 0), 0.0, slow=2.0)
    assert starts.due_s == 36.0
    ((_, seconds, expected_s),) = all_up(starts).values()
    assert seconds == pytest.approx(3 * COST.start_s(SMALL))
    assert expected_s == pytest.approx(COST.start_s(SMALL))


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(0, 2), st.floats(0.5, 2.0)), min_size=1, max_size=8))
def test_what_is_expected_of_a_start_knows_what_it_shared(begins: list[tuple[float, int, float]]) -> None:
    """Measured ÷ expected is a start's own slowness, however many loaded beside it."""
    starts = Starts(UNCACHED)
    found: dict[int, Up] = {}
    for id, (at_s, node, slow) in enumerate(sorted(begins)):
        found |= all_up(starts, at_s)
        starts.begin(id, SMALL, "h100", gpus(node, id), at_s, slow)
    found |= all_up(starts)
    assert len(found) == len(begins)
    for id, (_, _, slow) in enumerate(sorted(begins)):
        assert found[id].seconds / found[id].expected_s == pytest.approx(slow, rel=1e-6)
        assert found[id].expected_s >= COST.start_s(SMALL) * (1 - 1e-9)


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 2), st.sampled_from([SMALL, LARGE])), min_size=1, max_size=8),
    st.floats(0.5, 2.0),
)
def test_a_slowness_of_all_starts_is_what_measured_over_expected_says(
    begins: list[tuple[float, int, str]], slow: float
) -> None:
    """Also for those that waited for another's fetch from the object store, or read what it left in memory."""
    starts = Starts(COST.with_slow({}, slow))
    for node in (1, 2):
        starts.joined(f"h100/{node}")
    found: dict[int, Up] = {}
    for id, (at_s, node, model) in enumerate(sorted(begins)):
        found |= all_up(starts, at_s)
        starts.begin(id, model, "h100", gpus(node, id), at_s)
    found |= all_up(starts)
    assert sorted(found) == list(range(len(begins)))
    assert all(up.seconds / up.expected_s == pytest.approx(slow, rel=1e-6) for up in found.values())


# --- sources -------------------------------------------------------------------------------------------------------


def source_of(starts: Starts, model: str, *where: tuple[str, int]) -> dict[str, Source]:
    """From where a replica that starts now would load, by node."""
    starts.begin(99, model, "h100", where, 0.0)
    starts.advance(12.0)
    found = starts.sources(99)
    starts.end(99, 12.0)
    return found


def test_a_node_that_was_there_from_the_beginning_reads_its_drive() -> None:
    assert source_of(Starts(COST), SMALL, *gpus(0, 0)) == {"h100/0": Source.DRIVE}


@pytest.mark.parametrize(("drive", "bandwidth"), [("nvme-gen4", 7e9), ("nvme-gen3", 3.5e9), ("sata", 0.55e9)])
def test_a_drive_has_the_bandwidth_of_its_class(drive: str, bandwidth: float) -> None:
    starts = Starts(with_storage(Storage(drive)))
    starts.begin(0, SMALL, "h100", gpus(0, 0), 0.0)
    assert all_up(starts)[0].seconds == pytest.approx(BESIDE_S + BYTES / bandwidth)


def test_what_a_node_has_loaded_before_comes_from_its_host_memory() -> None:
    starts = Starts(COST)
    starts.serves(0, SMALL, "h100", gpus(0, 0))
    assert source_of(starts, SMALL, *gpus(0, 1)) == {"h100/0": Source.MEMORY}
    assert source_of(starts, LARGE, *gpus(0, 1)) == {"h100/0": Source.DRIVE}
    assert source_of(starts, SMALL, *gpus(1, 1)) == {"h100/1": Source.DRIVE}
    starts.end(0, 12.0)
    starts.begin(1, SMALL, "h100", gpus(0, 0), 20.0)
    assert all_up(starts)[1].seconds == pytest.approx(BESIDE_S + BYTES / 20e9)


def test_host_memory_keeps_what_was_used_last_and_no_more_than_it_holds() -> None:
    starts = Starts(with_storage(Storage(page_cache_bytes=COST.weight_bytes(LARGE) + BYTES / 2)))
    starts.serves(0, SMALL, "h100", gpus(0, 0))
    starts.serves(1, LARGE, "h100", gpus(0, 1, 2))
    assert source_of(starts, LARGE, *gpus(0, 3)) == {"h100/0": Source.MEMORY}
    assert source_of(starts, SMALL, *gpus(0, 3)) == {"h100/0": Source.DRIVE}
    small = Starts(with_storage(Storage(page_cache_bytes=COST.weight_bytes(LARGE) - 1)))
    small.serves(0, LARGE, "h100", gpus(0, 0, 1))
    assert source_of(small, LARGE, *gpus(0, 3)) == {"h100/0": Source.DRIVE}


def test_a_node_that_has_just_joined_reads_the_object_store_once() -> None:
    starts = Starts(UNCACHED)
    starts.joined("h100/3")
    assert source_of(starts, SMALL, *gpus(3, 0)) == {"h100/3": Source.OBJECT_STORE}
    starts.begin(0, SMALL, "h100", gpus(3, 0), 20.0)
    assert all_up(starts)[0].seconds == pytest.approx(BESIDE_S + BYTES / 1e9)
    assert source_of(starts, SMALL, *gpus(3, 1)) == {"h100/3": Source.DRIVE}
    assert source_of(starts, LARGE, *gpus(3, 1)) == {"h100/3": Source.OBJECT_STORE}
    # lost, and granted again under the same name
    starts.joined("h100/3")
    assert source_of(starts, SMALL, *gpus(3, 1)) == {"h100/3": Source.OBJECT_STORE}


def test_an_image_that_has_the_weights_needs_no_object_store() -> None:
    starts = Starts(with_storage(Storage(joining="drive")))
    starts.joined("h100/3")
    assert source_of(starts, SMALL, *gpus(3, 0)) == {"h100/3": Source.DRIVE}


def test_a_peer_is_read_only_where_the_engine_can() -> None:
    def sources(peers: str) -> list[Source]:
        starts = Starts(with_storage(Storage(page_cache_bytes=0, peers=peers)))
        starts.serves(0, SMALL, "h100", gpus(0, 0))
        return [*source_of(starts, SMALL, *gpus(0, 1)).values(), *source_of(starts, SMALL, *gpus(1, 1)).values()]

    assert sources("none") == [Source.DRIVE, Source.DRIVE]
    assert sources("node") == [Source.PEER, Source.DRIVE]
    assert sources("cluster") == [Source.PEER, Source.PEER]


def test_a_peer_gives_at_the_speed_of_the_link_between_them() -> None:
    for node, bandwidth in ((0, HARDWARE.gpus["h100"].link_bandwidth), (1, HARDWARE.gpus["h100"].network_bandwidth)):
        starts = Starts(with_storage(Storage(page_cache_bytes=0, peers="cluster")))
        starts.serves(0, SMALL, "h100", gpus(0, 0))
        starts.begin(1, SMALL, "h100", gpus(node, 1), 0.0)
        assert all_up(starts)[1].seconds == pytest.approx(BESIDE_S + BYTES / bandwidth)


def test_who_copies_from_a_peer_that_goes_reads_the_rest_elsewhere() -> None:
    starts = Starts(with_storage(Storage(page_cache_bytes=0, peers="cluster")))
    starts.serves(0, LARGE, "h100", gpus(0, 0, 1))
    starts.begin(1, LARGE, "h100", gpus(1, 0, 1), 0.0)
    starts.advance(12.0)
    starts.end(0, 13.0)
    assert starts.sources(1) == {"h100/1": Source.DRIVE}
    rest = COST.weight_bytes(LARGE) - HARDWARE.gpus["h100"].network_bandwidth
    assert all_up(starts)[1].seconds == pytest.approx(BESIDE_S + 1.0 + rest / 3.5e9)


def test_a_replica_over_two_nodes_waits_for_the_slower_of_its_sources() -> None:
    starts = Starts(UNCACHED)
    starts.joined("h100/1")
    starts.begin(0, LARGE, "h100", (*gpus(0, 0), *gpus(1, 0)), 0.0)
    starts.advance(12.0)
    assert starts.sources(0) == {"h100/0": Source.DRIVE, "h100/1": Source.OBJECT_STORE}
    assert all_up(starts)[0].seconds == pytest.approx(BESIDE_S + COST.weight_bytes(LARGE) / 2 / 1e9)


def test_the_storage_of_a_cluster_reaches_its_starts() -> None:
    pool = Pool("h100", "h100", 8, 8, 8, 1.0, storage=Storage("sata"))
    times = start_times(Cluster("mine", (pool,), HARDWARE.gpus, object_store_bandwidth=3e9))
    assert times.object_store_bandwidth == 3e9
    assert times.storage_of("h100/5").drive == "sata"
    assert times.storage_of("another/5") == Storage()


# --- beside one another --------------------------------------------------------------------------------------------


def test_starts_on_one_node_share_its_drive_and_on_two_they_do_not() -> None:
    starts = Starts(UNCACHED)
    for id, (node, index) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)]):
        starts.begin(id, SMALL, "h100", gpus(node, index), 0.0)
    seconds = [up.seconds for _, up in sorted(all_up(starts).items())]
    assert seconds == pytest.approx([BESIDE_S + 3 * BYTES / 3.5e9] * 3 + [BESIDE_S + BYTES / 3.5e9])


def test_starts_from_memory_share_the_way_to_the_gpus() -> None:
    starts = Starts(COST)
    starts.serves(9, SMALL, "h100", gpus(0, 7))
    for id in range(4):
        starts.begin(id, SMALL, "h100", gpus(0, id), 0.0)
    assert [up.seconds for up in all_up(starts).values()] == pytest.approx([BESIDE_S + 4 * BYTES / 20e9] * 4)


def test_the_object_store_is_shared_by_the_whole_cluster() -> None:
    starts = Starts(COST)
    for node in range(5):
        starts.joined(f"h100/{node}")
        starts.begin(node, SMALL, "h100", gpus(node, 0), 0.0)
    assert [up.seconds for up in all_up(starts).values()] == pytest.approx([BESIDE_S + 5 * BYTES / 1e9] * 5)


def test_a_wide_object_store_is_limited_by_each_nodes_nic() -> None:
    narrow = replace(HARDWARE, gpus={"h100": replace(HARDWARE.gpus["h100"], network_bandwidth=2e9)})
    starts = Starts(CostModel(narrow, start=StartTimes(object_store_bandwidth=1e12)))
    starts.joined("h100/0")
    starts.joined("h100/1")
    starts.begin(0, SMALL, "h100", gpus(0, 0), 0.0)
    starts.begin(1, LARGE, "h100", gpus(0, 1, 2), 0.0)
    starts.begin(2, SMALL, "h100", gpus(1, 0), 0.0)
    up = all_up(starts)
    both_s = (BYTES + COST.weight_bytes(LARGE)) / 2e9
    assert [up[id].seconds for id in range(3)] == pytest.approx(
        [BESIDE_S + BYTES / 1e9, BESIDE_S + both_s, BESIDE_S + BYTES / 2e9]
    )


@pytest.mark.parametrize(("page_cache_bytes", "again"), [(256e9, 20e9), (0.0, 3.5e9)], ids=["memory", "drive"])
def test_a_node_fetches_a_model_once_and_its_other_starts_wait_for_it(page_cache_bytes: float, again: float) -> None:
    starts = Starts(with_storage(Storage(page_cache_bytes=page_cache_bytes)))
    starts.joined("h100/0")
    for id in range(3):
        starts.begin(id, SMALL, "h100", gpus(0, id), 0.0)
    starts.advance(13.0)
    assert [starts.sources(id) for id in range(3)] == [{"h100/0": Source.OBJECT_STORE}, {}, {}]
    up = all_up(starts)
    fetched_s = BESIDE_S + BYTES / 1e9
    assert [up[id].seconds for id in range(3)] == pytest.approx([fetched_s, *[fetched_s + 2 * BYTES / again] * 2])


def test_where_a_fetch_is_given_up_the_next_one_that_waited_fetches() -> None:
    starts = Starts(COST)
    starts.joined("h100/0")
    for id in range(3):
        starts.begin(id, SMALL, "h100", gpus(0, id), 0.0)
    starts.advance(13.0)
    starts.end(0, 13.0)
    assert [starts.sources(id) for id in (1, 2)] == [{"h100/0": Source.OBJECT_STORE}, {}]
    up = all_up(starts)
    assert [up[id].seconds for id in (1, 2)] == pytest.approx(
        [BESIDE_S + 1.0 + BYTES / 1e9, BESIDE_S + 1.0 + BYTES / 1e9 + BYTES / 20e9]
    )


def test_a_start_that_is_given_up_while_it_loads_leaves_its_share() -> None:
    starts = Starts(UNCACHED)
    starts.begin(0, SMALL, "h100", gpus(0, 0), 0.0)
    starts.begin(1, SMALL, "h100", gpus(0, 1), 0.0)
    starts.advance(14.0)
    starts.end(1, 14.0)
    # two seconds at half the drive, so one second of reading was the other's
    assert all_up(starts)[0].seconds == pytest.approx(COST.start_s(SMALL) + 1.0)


def test_a_start_that_is_given_up_before_or_after_its_load_disturbs_nobody() -> None:
    for ended_s in (5.0, 25.0):
        starts = Starts(UNCACHED)
        starts.begin(0, SMALL, "h100", gpus(0, 0), 0.0)
        starts.begin(1, SMALL, "h100", gpus(0, 1), 8.0 if ended_s < 8 else 0.0)
        starts.advance(ended_s)
        starts.end(0, ended_s)
        (up,) = all_up(starts).values()
        assert up.id == 1
        assert starts.due_s == math.inf
