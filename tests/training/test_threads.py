import torch

from unflat.training import threads


def test_the_faster_number_is_kept(monkeypatch):
    """A clock on which two threads are slower than one, then the other way round."""
    before = torch.get_num_threads()
    current = {"threads": 2, "now": 0.0}
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(
        threads.torch, "set_num_threads", lambda count: current.update(threads=count)
    )
    monkeypatch.setattr(threads.time, "perf_counter", lambda: current["now"])

    def work(seconds):
        current["now"] += seconds[current["threads"]]

    assert threads.fastest_threads(lambda: work({1: 1.0, 2: 3.0})) == 1
    assert current["threads"] == 1
    assert threads.fastest_threads(lambda: work({1: 3.0, 2: 1.0})) == 2
    assert current["threads"] == 2
    monkeypatch.undo()
    assert torch.get_num_threads() == before


def test_one_thread_needs_no_measuring(monkeypatch):
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 1)
    assert threads.fastest_threads(lambda: 1 / 0) == 1
