"""Latent consistency distillation of a LoRA, for any Stable-Diffusion-like base.

Given latents and embedded captions, a LoRA on the base's UNet learns to jump to the end of the
guided sampling path at once (arXiv 2310.04378, algorithm 1; as a LoRA: arXiv 2311.05556). Teacher,
student and target are one UNet with its adapters off, or one of its adapters on.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from workers.distill_curve import Curve, boundary_scalings, huber
from workers.lora import LORA_TARGETS, WEIGHTS_FILE, lora_config, save_lora

STUDENT, TARGET = "student", "target"


@dataclass(frozen=True)
class DistillSettings:
    """How to distil; the defaults suit a small base, the published ones a large one."""

    rank: int = 16
    alpha: int = 16
    learning_rate: float = 3e-4
    warm_steps: int = 20
    total_steps: int = 1000
    solver_steps: int = 25
    """DDIM steps of the whole path; 1000 / solver_steps is the skipping interval k."""
    w_min: float = 2.0
    w_max: float = 2.0
    """Range of w in eps = (1 + w) eps(caption) - w eps(empty); the pipelines' scale is w + 1."""
    w_fall: float = 0.0
    """Share of w that is gone at t = 0, linearly in t: later steps then add less guidance."""
    target_decay: float = 0.95
    """Of the averaged target; 0: the target is the student itself, and there is one adapter."""
    distance: Literal["huber", "l2"] = "huber"
    huber_c: float = 1e-3
    clip: float = 1.0
    seed: int = 0
    targets: tuple[str, ...] = LORA_TARGETS
    precision: torch.dtype = torch.float32
    """Of the frozen UNet and its arithmetic; the adapters are float32 at all times."""


@dataclass(frozen=True)
class Batch:
    """Latents [n, c, h, w] (scaled), embedded captions, and what else the UNet wants."""

    latents: Tensor
    states: Tensor
    """Encoder hidden states [n, tokens, width]."""
    empty: Tensor
    """Encoder hidden states of no caption, of the same shape."""
    extra: Mapping[str, Any] | None = None
    """Further keyword arguments of the UNet, e.g. SDXL's ``added_cond_kwargs``."""
    empty_extra: Mapping[str, Any] | None = None
    weight: Tensor | None = None
    """Loss weights that broadcast to the latents."""


class Distiller:
    """Holds the UNet with both adapters and the optimiser; one `step` per batch.

    All randomness of step ``n`` comes from (seed, n, rank), so a resumed run equals an unbroken
    one. Several processes train together by giving ``share``, which averages gradients over them.
    """

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        settings: DistillSettings,
        share: Callable[[list[nn.Parameter]], object] | None = None,
        rank: int = 0,
    ) -> None:
        self.unet, self.settings, self.share, self.rank = unet, settings, share, rank
        self.curve = Curve.of(scheduler)
        self.target = TARGET if settings.target_decay else STUDENT
        unet.requires_grad_(False)
        unet.to(settings.precision)
        torch.manual_seed(settings.seed)
        config = lora_config(settings.rank, settings.alpha, settings.targets)
        for name in dict.fromkeys((self.target, STUDENT)):
            unet.add_adapter(config, adapter_name=name)
            for parameter in self._own(name):
                parameter.data = parameter.data.float()
        self._load_adapter(self.target, self.adapter(STUDENT))
        unet.set_adapter(STUDENT)
        unet.train()
        self.parameters = self._own(STUDENT)
        self._averages = self._own(TARGET)
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=0.0
        )
        device = self.parameters[0].device.type
        self._scaler = torch.amp.GradScaler(device, enabled=settings.precision == torch.float16)
        self.steps_done = 0

    def _own(self, name: str) -> list[nn.Parameter]:
        """The parameters of one adapter."""
        return [p for n, p in self.unet.named_parameters() if f".{name}." in n]

    def adapter(self, name: str) -> dict[str, Tensor]:
        """A copy of one adapter's weights."""
        state = get_peft_model_state_dict(self.unet, adapter_name=name)
        return {key: value.detach().clone() for key, value in state.items()}

    def _load_adapter(self, name: str, state: Mapping[str, Tensor]) -> None:
        set_peft_model_state_dict(self.unet, dict(state), adapter_name=name)

    @contextmanager
    def _wearing(self, name: str | None) -> Iterator[None]:
        """The UNet with adapter ``name``, or as the teacher with none; the student afterwards."""
        if name is None:
            self.unet.disable_adapters()
        else:
            self.unet.set_adapter(name)
        try:
            with torch.no_grad():
                yield
        finally:
            self.unet.enable_adapters()
            self.unet.set_adapter(STUDENT)

    def _predict(self, noisy: Tensor, times: Tensor, states: Tensor, extra: Any) -> Tensor:
        precision, device = self.settings.precision, noisy.device.type
        given = {name: _cast(value, precision) for name, value in (extra or {}).items()}
        # On a CPU PEFT's own casts must do: its normalisations take no mixed dtypes.
        mixed = device == "cuda" and precision != torch.float32
        with torch.autocast(device, precision, enabled=mixed):
            net = self.unet(noisy.to(precision), times, states.to(precision), **given)
        made: Tensor = net.sample
        return made.float()

    def _jump(self, noisy: Tensor, times: Tensor, batch: Batch) -> Tensor:
        """The consistency function f(z, t): the path's end as seen from ``noisy`` [n, c, h, w]."""
        skip, out = boundary_scalings(times, noisy.ndim)
        predicted = self._predict(noisy, times, batch.states, batch.extra)
        return skip * noisy + out * self.curve.clean(noisy, predicted, times)

    def solve(self, noisy: Tensor, start: Tensor, end: Tensor, w: Tensor, batch: Batch) -> Tensor:
        """One guided DDIM step of the teacher from times ``start`` to ``end`` (int64 [n])."""
        with self._wearing(None):
            told = self._predict(noisy, start, batch.states, batch.extra)
            free = self._predict(noisy, start, batch.empty, batch.empty_extra or batch.extra)
        predicted = told + w.view(-1, *[1] * (noisy.ndim - 1)) * (told - free)
        clean = self.curve.clean(noisy, predicted, start)
        return self.curve.add_noise(clean, self.curve.noise(noisy, predicted, start), end)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Distance between the student's jump from t and the target's from one solver step on."""
        settings, n = self.settings, len(batch.latents)
        stride = self.curve.length // settings.solver_steps
        index = torch.randint(settings.solver_steps, (n,), generator=generator)
        start = ((index + 1) * stride - 1).to(batch.latents.device)
        end = (start - stride).clamp(min=0)
        span = settings.w_max - settings.w_min
        w = settings.w_min + span * torch.rand(n, generator=generator)
        w = w * (1 - settings.w_fall * (1 - (index + 1) / settings.solver_steps))
        noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
        noisy = self.curve.add_noise(batch.latents, noise, start)
        before = self.solve(noisy, start, end, w.to(noisy), batch)
        with self._wearing(self.target):
            wanted = self._jump(before, end, batch)
        made = self._jump(noisy, start, batch)
        if settings.distance == "huber":
            distance = huber(made, wanted, settings.huber_c)
        else:
            distance = (made - wanted).square()
        return (distance if batch.weight is None else distance * batch.weight).mean()

    def step(self, batch: Batch, progress: float | None = None) -> float:
        """One optimiser step; returns the loss.

        ``progress`` in 0..1 sets the learning rate: constant, then falling over the last third. It
        is the share of ``total_steps`` unless told, e.g. by a budget of time.
        """
        settings = self.settings
        number = (settings.seed * 1_000_003 + self.steps_done) * 256 + self.rank
        generator = torch.Generator().manual_seed(number)
        if progress is None:
            progress = self.steps_done / max(settings.total_steps, 1)
        warm = min((self.steps_done + 1) / max(settings.warm_steps, 1), 1.0)
        fall = min(max(1 - progress, 0.02) * 3, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * warm * fall
        loss = self.loss(batch, generator)
        self.optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        # Averaged before it is unscaled: where one process overflows, all of them skip the step.
        if self.share is not None:
            self.share(self.parameters)
        self._scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        with torch.no_grad():
            for average, own in zip(self._averages, self.parameters, strict=bool(self._averages)):
                average.lerp_(own, 1 - settings.target_decay)
        self.steps_done += 1
        return float(loss.detach())

    def begin_from(self, folder: Path) -> None:
        """Begin with a LoRA of the same rank that `save` wrote, instead of no change."""
        layers = load_file(folder / WEIGHTS_FILE)
        state = {key.removeprefix("unet."): value.float() for key, value in layers.items()}
        for name in (self.target, STUDENT):
            self._load_adapter(name, state)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "settings": {**asdict(self.settings), "precision": str(self.settings.precision)},
            "steps_done": self.steps_done,
            "student": self.adapter(STUDENT),
            "target": self.adapter(self.target),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._load_adapter(STUDENT, state["student"])
        self._load_adapter(self.target, state["target"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state.get("scaler", {}))
        self.steps_done = int(state["steps_done"])

    def save(self, folder: Path, strength: float = 1.0) -> Path:
        """Write the averaged LoRA in half precision, as plain diffusers loads it.

        ``strength`` is multiplied into the weights, so that weight 1.0 means it for every reader.
        """
        return save_lora(self.unet, self.target, folder, strength)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Tensors, and those in a dictionary, in another dtype."""
    if isinstance(value, Mapping):
        return {name: _cast(one, dtype) for name, one in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) else value
