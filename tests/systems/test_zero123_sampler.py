"""Sampling: schedules in closed form, solvers against exact solutions and diffusers' own."""

import itertools
import math

import pytest
import torch

from unflat.systems.zero123.model import Split
from unflat.systems.zero123.sampler import Sampler, sample
from unflat.systems.zero123.schedule import NoiseSchedule, timesteps

SCHEDULES = {"scaled": NoiseSchedule.scaled_linear(), "cosine": NoiseSchedule.cosine()}


def gaussian(schedule: NoiseSchedule, mean: torch.Tensor, deviation: float):
    """The exact denoiser of pictures drawn from a Gaussian: linear in the noisy picture."""

    def denoiser(noisy, timestep):
        keep, add = (value.view(-1, 1, 1, 1) for value in schedule.at(timestep, noisy))
        gain = keep * deviation**2 / (keep**2 * deviation**2 + add**2)
        clean = mean + gain * (noisy - keep * mean)
        return Split(clean, (noisy - keep * clean) / add)

    return denoiser


def last(denoiser, schedule, noise, visited, sampler, fresh=None):
    *_, step = sample(denoiser, schedule, noise, visited, sampler, fresh)
    return step


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("method", ["ddim", "dpm++"])
def test_noise_becomes_a_draw_of_the_gaussian_and_faster_with_second_order(name, method):
    schedule = SCHEDULES[name]
    mean, deviation = torch.tensor(0.6, dtype=torch.float64), 0.3
    denoiser = gaussian(schedule, mean, deviation)
    noise = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)).double()
    # the flow of the ordinary differential equation carries quantiles to quantiles
    exact = mean + deviation * noise
    errors = []
    for steps in (10, 40):
        found = last(
            denoiser, schedule, noise, timesteps(steps, "trailing"), Sampler(method=method)
        )
        errors.append(float((found.clean - exact).abs().mean()))
    if name == "cosine":  # scaled-linear ends with some signal left, so its noise is not all noise
        assert errors[1] < {"ddim": 0.02, "dpm++": 0.004}[method]
        assert errors[1] < errors[0] / {"ddim": 2.5, "dpm++": 4}[method]
    assert errors[1] < 0.06


def test_eta_one_keeps_the_variance():
    schedule = SCHEDULES["cosine"]
    denoiser = gaussian(schedule, torch.tensor(0.2), 0.5)
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 100, 100, generator=draws)
    found = last(
        denoiser,
        schedule,
        noise,
        timesteps(100, "trailing"),
        Sampler(method="ddim", eta=1.0),
        lambda number: torch.randn(noise.shape, generator=draws),
    )
    assert float(found.clean.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(found.clean.std()) == pytest.approx(0.5, abs=0.02)
    # what chance decided is not what the first noise told
    assert abs(float(torch.corrcoef(torch.stack([found.clean, noise]).flatten(1))[0, 1])) < 0.2


def test_eta_without_noise_is_refused():
    with pytest.raises(ValueError, match="fresh noise"):
        last(
            gaussian(SCHEDULES["cosine"], torch.tensor(0.0), 1.0),
            SCHEDULES["cosine"],
            torch.zeros(1, 1, 2, 2),
            timesteps(3, "trailing"),
            Sampler(method="ddim", eta=0.5),
        )


def test_a_known_picture_comes_out_exactly_whatever_the_steps():
    clean = torch.rand(2, 4, 8, 8)

    def denoiser(noisy, timestep):
        return Split(clean, SCHEDULES["cosine"].split(noisy, clean, timestep, "clean")[1])

    for steps in (1, 2, 7):
        found = last(
            denoiser,
            SCHEDULES["cosine"],
            torch.randn(2, 4, 8, 8),
            timesteps(steps, "trailing"),
            Sampler(),
        )
        torch.testing.assert_close(found.latent, clean)


def test_noise_and_picture_split_and_join():
    clean, noise = torch.rand(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    timestep = torch.tensor([1, 500, 998])
    for schedule in SCHEDULES.values():
        noisy = schedule.add_noise(clean, noise, timestep)
        for prediction, said in (("noise", noise), ("clean", clean)):
            found = schedule.split(noisy, said, timestep, prediction)
            torch.testing.assert_close(found[0], clean, atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(found[1], noise, atol=2e-3, rtol=1e-3)


def test_cosine_ends_in_pure_noise_and_begins_clean():
    signal = SCHEDULES["cosine"].signal
    assert signal[-1] == 0
    assert signal[0] == pytest.approx(math.cos(math.pi / 2000) ** 2)
    assert bool((signal[1:] < signal[:-1]).all())


def test_spacings():
    assert timesteps(5, "leading").tolist() == [801, 601, 401, 201, 1]
    assert timesteps(5, "leading_drop").tolist() == [601, 401, 201, 1]
    assert len(timesteps(75, "leading")) == 77
    assert timesteps(4, "trailing").tolist() == [999, 749, 499, 249]
    hourglass = timesteps(9, "hourglass").tolist()
    assert hourglass[0] == 999
    assert hourglass[-1] == 0
    gaps = [a - b for a, b in itertools.pairwise(hourglass)]
    assert gaps[0] < gaps[3]
    assert gaps[-1] < gaps[4]
    for steps, spacing in (
        (501, "leading"),
        (1, "leading_drop"),
        (0, "trailing"),
        (1001, "hourglass"),
    ):
        with pytest.raises(ValueError, match="steps is"):
            timesteps(steps, spacing)


class _Net(torch.nn.Module):
    """Noise that depends on picture and time, smoothly."""

    def forward(self, noisy, timestep):
        time = timestep.view(-1, 1, 1, 1).double() / 1000
        return 0.7 * noisy + 0.3 * torch.sin(3 * noisy + time) * (1 - 0.4 * time)


def _denoiser(schedule):
    network = _Net()

    def denoiser(noisy, timestep):
        return Split(*schedule.split(noisy, network(noisy, timestep), timestep, "noise"))

    return denoiser


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
def test_ddim_is_diffusers():
    diffusers = pytest.importorskip("diffusers")
    schedule = SCHEDULES["scaled"]
    oracle = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    oracle.set_timesteps(20)
    visited = timesteps(20, "leading")
    assert oracle.timesteps.tolist() == visited.tolist()
    start = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2)).double()
    x = start
    for timestep in oracle.timesteps:
        x = oracle.step(_Net()(x, timestep.expand(2)), timestep, x).prev_sample
    found = last(_denoiser(schedule), schedule, start, visited, Sampler(method="ddim"))
    torch.testing.assert_close(found.latent, x, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
def test_dpm_solver_is_diffusers():
    diffusers = pytest.importorskip("diffusers")
    schedule = SCHEDULES["scaled"]
    oracle = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
        lower_order_final=False,
        euler_at_final=True,
    )
    oracle.set_timesteps(15)
    visited = timesteps(15, "trailing")
    assert oracle.timesteps.tolist() == visited.tolist()
    start = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(3)).double()
    x = start
    for timestep in oracle.timesteps:
        x = oracle.step(_Net()(x, timestep.expand(2)), timestep, x).prev_sample
    found = last(_denoiser(schedule), schedule, start, visited, Sampler())
    torch.testing.assert_close(found.latent, x, atol=1e-4, rtol=1e-4)
