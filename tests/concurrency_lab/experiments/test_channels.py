import tempfile
from pathlib import Path

import pytest

from concurrency_lab.experiments import channels
from concurrency_lab.experiments.echo import EchoSocket


@pytest.mark.parametrize(
    "kind",
    [channels.SharedObject, channels.ThreadQueue, channels.Pipe, EchoSocket, channels.File],
)
def test_every_channel_returns_the_message(kind, no_child_left):
    with kind() as peer:
        for message in (b"!", bytes(range(256)) * 4096):
            assert peer.round_trip(message) == message


@pytest.mark.parametrize("kind", [channels.SharedObject, channels.ThreadQueue])
def test_threads_pass_the_object_itself(kind):
    message = bytes(1000)
    with kind() as peer:
        assert peer.round_trip(message) is message


@pytest.mark.parametrize("kind", [channels.Pipe, EchoSocket, channels.File])
def test_processes_pass_a_copy(kind):
    message = bytes(1000)
    with kind() as peer:
        assert peer.round_trip(message) is not message


def test_which_channels_pass_the_object_itself():
    passing = [name for name, same in channels.same_object_arrives().items() if same]
    assert passing == ["shared object", "queue"]


def test_an_error_in_the_block_leaves_nothing(no_child_left, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        with channels.Pipe(), channels.File(), EchoSocket():
            raise KeyboardInterrupt
    assert not list(Path(tmp_path).iterdir())


def test_a_dead_echo_process_is_an_error_not_a_hang():
    with EchoSocket() as peer:
        peer._peer.kill()
        peer._peer.wait()
        with pytest.raises(OSError):
            for _ in range(3):
                peer.round_trip(b"anyone there?")


def test_round_trips_pairs_all_cases():
    costs = channels.round_trips({"8 B": 8}, trips=2, rounds=3)
    assert list(costs.values) == [f"{name}, 8 B" for name in channels.NAMES]
    assert {len(values) for values in costs.values.values()} == {3}


def test_round_trips_refuses_an_empty_message():
    with pytest.raises(ValueError, match="at least 1 byte"):
        channels.round_trips({"nothing": 0})
