"""What looks at whole windows: the perceptual term, and critics of canonical and novel views.

Both critics are StyleGAN2's. That of novel views sees disparity beside colour, and takes pictures
with their teacher's disparity for real: flat geometry shows there, and not in colour alone. The
canonical one never sees a novel view, or it would take blur for novelty (specs: vq3d section 5,
rows 10 and 11).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.losses import follow, lecam_penalty, perceptual_loss, play, r1_weight
from unflat.nn.blur import gaussian_blur
from unflat.nn.critic import Critic
from unflat.systems.vq3d.autoencoder import SceneField
from unflat.systems.vq3d.loss_config import LossConfig
from unflat.systems.vq3d.views import canonical_light, disc_cameras, jittered_edges, novel_light
from unflat.training.distribution import mean_over_processes
from unflat.training.randomness import rand_per_sample

# Adam does not see how large a loss is. The loop's limit on the gradient's length does, and both
# players share it: so small, the critics' part never shortens the model's.
CRITIC_SCALE = 0.01
_FIRST_ANGLE = 0.25  # of the novel critic's largest angle, at the start
_RAMP = 1 / 3  # share of the run over which it grows to the whole (G3DR, arXiv 2403.06939)
_LECAM_SHARE = 0.01  # of a step's mean in LeCam's averages


class Judge(nn.Module):
    """A critic of one kind of view, with the averages that LeCam's regulariser needs."""

    averages: Tensor
    seen: Tensor

    def __init__(self, channels: int, loss: LossConfig):
        super().__init__()
        self.critic = Critic(
            loss.crop,
            channels=channels,
            width=loss.critic_width,
            widest=loss.critic_widest,
            is_spectral=loss.critic_spectral,
        )
        self.loss = loss
        if loss.lecam_weight:
            self.register_buffer("averages", torch.zeros(2))  # of logits: real, made
            self.register_buffer("seen", torch.zeros(3))  # this step's sums, and how many

    def terms(
        self,
        real: Float[Tensor, "batch channels side side"],
        fake: Float[Tensor, "batch channels side side"],
        most: Float[Tensor, " batch"],
        weight: float,
        r1_gamma: float,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, ""]]:
        """What the model and the critic minimise, picture by picture, and the gap of the logits.

        Args:
            real: in [0, 1].
            fake: of the same pictures.
            most: longest gradient by each made picture.
            weight: of the model's term.
            r1_gamma: weight of R1 in this step; 0 leaves it out.
        """
        judged = play(self.critic, 2 * real - 1, 2 * fake - 1, r1_gamma)
        slope = 2 * weight * judged.slope  # by colours in [0, 1]
        length = slope.flatten(1).norm(dim=1)
        slope = slope * (most / length.clamp_min(1e-12)).clamp_max(1)[:, None, None, None]
        own = judged.critic
        if self.loss.lecam_weight:
            real_logits, fake_logits = judged.real_logits, judged.fake_logits
            penalty = lecam_penalty(real_logits, fake_logits, *self.averages)
            own = own + self.loss.lecam_weight * penalty
            with torch.no_grad():
                sums = real_logits.sum(), fake_logits.sum(), real_logits.new_tensor(len(real))
                self.seen.add_(torch.stack(sums))
        gap = (judged.real_logits - judged.fake_logits).mean().detach()
        return follow(weight * judged.generator, slope, fake), CRITIC_SCALE * own, gap

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes what was seen into LeCam's averages, alike on every process."""
        if self.loss.lecam_weight:
            real, fake, count = mean_over_processes(self.seen)
            if count:
                self.averages.lerp_(torch.stack([real, fake]) / count, _LECAM_SHARE)
            self.seen.zero_()


class Windows:
    """The terms that see windows of the rendered views; the same window of every picture."""

    def __init__(
        self, loss: LossConfig, side: int, samples: int, perceptual: nn.Module | None = None
    ):
        """Judges with their first weights, if the objective has any.

        Args:
            loss: weights and schedules.
            side: of the pictures in pixels.
            samples: intervals of canonical rays.
            perceptual: distance of pairs of pictures, its weights frozen.

        Raises:
            ValueError: the window is larger than the picture, or the perceptual term has no
                network.
        """
        if loss.crop > side:
            raise ValueError(f"crop is {loss.crop}, more than the picture's side {side}")
        if loss.perceptual_weight and perceptual is None:
            raise ValueError("perceptual_weight is above 0, and no network is given")
        self.loss, self.side, self.samples, self.perceptual = loss, side, samples, perceptual
        self.judges = nn.ModuleDict()
        if loss.critic_weight:
            self.judges["canonical"] = Judge(3, loss)
        if loss.novel_critic_weight:
            self.judges["novel"] = Judge(4, loss)

    def terms(
        self,
        field: SceneField,
        taught_field: SceneField | None,
        batch: dict[str, Tensor],
        progress: float,
        generator: torch.Generator,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms to add up, and figures to log.

        Args:
            field: of all pictures.
            taught_field: of those with a teacher's disparity; None if there are none.
            batch: as the recipe has it.
            progress: share of the run that is done.
            generator: as the recipe has it.
        """
        loss, image = self.loss, batch["image"]
        canonical = loss.critic_weight > 0 and progress >= loss.critic_start
        novel = loss.novel_critic_weight > 0 and progress >= loss.novel_critic_start
        if not (canonical or novel or loss.perceptual_weight):
            return {}, {}
        draws = torch.rand(3, generator=generator, device=generator.device).tolist()
        corner = tuple(int(share * (self.side - loss.crop + 1)) for share in draws[:2])
        r1_gamma = self._r1_gamma(batch) if draws[2] * loss.r1_every < 1 else 0.0
        made = self._canonical(field, corner, generator)
        real = self._window(image, corner)
        error = (made - real).detach()
        # The window's squared error, a mean over its numbers, has a gradient of this length.
        most = loss.critic_limit * 2 * error.flatten(1).norm(dim=1) / error[0].numel()
        terms: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        if self.perceptual is not None and loss.perceptual_weight:
            cost = perceptual_loss(self.perceptual.to(image.device), made, real)
            terms["perceptual"] = loss.perceptual_weight * cost.mean()
        if canonical:
            grown = min(1.0, (progress - loss.critic_start) / loss.critic_fade)
            verdict = self._judge("canonical", real, made, grown, most, r1_gamma)
            terms["fooling"], terms["critic"], figures["gap"] = verdict
        if novel and taught_field is not None:
            taught = batch["has_disparity"].nonzero().flatten()
            numbers = rand_per_sample(batch, (3,), generator).to(image)
            disparity = batch["disparity"][taught]
            made = self._novel(taught_field, disparity, corner, progress, numbers[taught])
            real = self._window(torch.cat([image[taught], disparity], dim=1), corner)
            grown = min(1.0, (progress - loss.novel_critic_start) / loss.critic_fade)
            verdict = self._judge("novel", real, made, grown, most[taught], r1_gamma)
            share = len(taught) / len(image)
            terms["novel_fooling"], terms["novel_critic"] = verdict[0] * share, verdict[1] * share
            figures["novel_gap"] = verdict[2]
        return terms, figures

    def after_step(self) -> None:
        """Keeps LeCam's averages; alike on every process."""
        for judge in self.judges.values():
            assert isinstance(judge, Judge)
            judge.after_step()

    def _judge(
        self, name: str, real: Tensor, made: Tensor, grown: float, most: Tensor, r1_gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Means over the pictures, the critic's say as far grown as given."""
        loss, judge = self.loss, self.judges[name]
        assert isinstance(judge, Judge)
        weight = loss.critic_weight if name == "canonical" else loss.novel_critic_weight
        sigma = (1 - grown) * loss.critic_blur
        with torch.autocast(real.device.type, enabled=False):  # second derivatives
            soft = gaussian_blur(real.float(), sigma), gaussian_blur(made.float(), sigma)
            fooling, own, gap = judge.terms(*soft, most.float(), grown * weight, r1_gamma)
        return fooling.mean(), own.mean(), gap

    def _r1_gamma(self, batch: dict[str, Tensor]) -> float:
        """Weight of R1 in one of the few steps that compute it."""
        count = int(batch["batch_size"]) if "batch_size" in batch else len(batch["image"])
        gamma = self.loss.r1_gamma
        gamma = r1_weight(self.loss.crop, count) if gamma is None else gamma
        return gamma * self.loss.r1_every

    def _window(self, images: Tensor, corner: tuple[int, ...]) -> Tensor:
        top, left = corner
        return images[..., top : top + self.loss.crop, left : left + self.loss.crop]

    def _canonical(
        self, field: SceneField, corner: tuple[int, ...], generator: torch.Generator
    ) -> Float[Tensor, "batch 3 crop crop"]:
        """A window of the canonical view, with gradients."""
        device = next(field.buffers()).device
        rows, columns = (torch.arange(self.loss.crop, device=device) + first for first in corner)
        edges = jittered_edges(self.samples, generator, device)
        return canonical_light(field, rows, columns, self.side, edges).rgb.permute(0, 3, 1, 2)

    def _novel(
        self,
        field: SceneField,
        disparity: Float[Tensor, "batch 1 height width"],
        corner: tuple[int, ...],
        progress: float,
        numbers: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch 4 crop crop"]:
        """The same window of novel views: colour and normalised disparity, with gradients."""
        frame, crop = field.frame, self.loss.crop
        inverse_depth = frame.d_far + (frame.d_near - frame.d_far) * disparity[:, 0]
        angle = largest_angle(progress, self.loss.novel_critic_angle)
        camera = disc_cameras(frame.focal_assumed, inverse_depth, numbers[:, :2], angle)
        rows, columns = (torch.arange(crop, device=numbers.device) + first for first in corner)
        pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)
        pixels = pixels.expand(len(numbers), -1, -1)
        offset = (numbers[:, None, 2:] - 0.5).expand(-1, crop**2, -1)
        light = novel_light(field, camera, pixels, self.side, offset, self.loss.novel_samples)
        seen = torch.cat([light.rgb, light.disparity[..., None]], dim=-1)
        return seen.mT.unflatten(2, (crop, crop))


def largest_angle(progress: float, most: float) -> float:
    """How far novel cameras turn at most: a quarter at first, all after a third of the run."""
    return most * min(1.0, _FIRST_ANGLE + (1 - _FIRST_ANGLE) * progress / _RAMP)
