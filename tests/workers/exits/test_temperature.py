import numpy as np
import pytest

from workers.exits.temperature import LEAST, fit_temperature, fit_temperatures


def drawn(temperature: float, samples: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their probabilities at this temperature."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (samples, 4)).astype(np.float32)
    noise = generator.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_finds_the_temperature_that_drew_the_labels(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_on_a_fine_grid_is_better() -> None:
    logits, labels = drawn(2.0, 300)

    def loss(temperature: float) -> float:
        p = np.exp(logits.astype(float) / temperature)
        return -float(np.log(p[np.arange(len(labels)), labels] / p.sum(axis=1)).mean())

    found = fit_temperature(logits, labels)
    assert loss(found) <= min(loss(temperature) for temperature in np.geomspace(0.1, 10, 2000)) + 1e-7


def test_each_exit_has_its_own_and_one_that_is_always_right_stays_finite() -> None:
    logits, labels = drawn(2.0)
    sure = np.eye(4, dtype=np.float32)[labels]
    first, last = fit_temperatures(np.stack([logits, sure], axis=1), labels)
    assert first == fit_temperature(logits, labels)
    assert last == pytest.approx(LEAST, rel=1e-2)
    assert first == np.float32(first)
