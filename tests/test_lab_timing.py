from frugal.lab import median_seconds


def test_the_median_leaves_out_the_first_call_and_outliers() -> None:
    durations = iter([1000.0, 1.0, 50.0, 2.0])
    now = [0.0]

    def work() -> None:
        now[0] += next(durations)

    assert median_seconds(work, repeats=3, clock=lambda: now[0]) == 2.0
