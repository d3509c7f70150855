import pytest

from sparring.rl.schedule import rate_factor


def test_the_rate_falls_in_a_straight_line() -> None:
    assert [rate_factor(step, 5, 0.2) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert rate_factor(9, 5, 0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("steps", [0, 1])
def test_one_update_has_the_full_rate(steps: int) -> None:
    assert rate_factor(0, steps, 0.0) == 1.0


def test_an_end_of_one_changes_nothing() -> None:
    assert {rate_factor(step, 7, 1.0) for step in range(7)} == {1.0}
