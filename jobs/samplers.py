"""Samplers as submission knows them: what each allows, and which settings it understands."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.errors import InvalidInput
from jobs.recipe import Sampler, Setting

#: Of every noise schedule: what a base was trained with, and how its predictions are read.
_SCHEDULE = {
    "beta_start",
    "beta_end",
    "beta_schedule",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
}
_SPACING = {"timestep_spacing", "steps_offset"}
_DISTILLED = {"original_inference_steps", "timestep_scaling", "set_alpha_to_one", "timesteps"}
_SIGMAS = {"use_karras_sigmas", "final_sigmas_type", "timesteps"}


@dataclass(frozen=True)
class SamplerFacts:
    """What one sampler allows."""

    title: str
    steps_max: int
    #: Names that may stand in an accelerator's `sampler_settings`.
    settings: frozenset[str]
    #: How much of each step is fresh noise where nobody says; None: it has no such setting.
    eta: float | None = None
    #: Whether it draws noise at every step but the last, whatever `eta` is.
    always_draws: bool = False

    def draws_noise(self, settings: Mapping[str, Setting]) -> bool:
        """Whether a picture of several steps needs noise beyond its initial latent."""
        eta = settings.get("eta", self.eta)
        return self.always_draws or (eta is not None and float(str(eta)) > 0.0)


SAMPLERS: dict[Sampler, SamplerFacts] = {
    "lcm": SamplerFacts(
        "LCM multistep (arXiv 2310.04378)",
        50,
        # Without timestep_spacing: diffusers' scheduler takes it and does nothing with it.
        frozenset(_SCHEDULE | _DISTILLED),
        always_draws=True,
    ),
    "tcd": SamplerFacts(
        "trajectory consistency (arXiv 2402.19159)",
        50,
        frozenset(_SCHEDULE | (_DISTILLED - {"timestep_scaling"}) | {"eta"}),
        # The scheduler's own default; a pipeline of diffusers passes 0 unless it is told.
        eta=0.3,
    ),
    "ddim": SamplerFacts(
        "DDIM (arXiv 2010.02502)",
        100,
        frozenset(_SCHEDULE | _SPACING | {"set_alpha_to_one", "clip_sample"}),
    ),
    "dpm": SamplerFacts(
        "DPM-Solver, second order multistep (arXiv 2206.00927)",
        100,
        frozenset(_SCHEDULE | _SPACING | {"use_karras_sigmas", "solver_order"}),
    ),
    "dpmpp": SamplerFacts(
        "DPM-Solver++, second order multistep (arXiv 2211.01095)",
        100,
        frozenset(_SCHEDULE | _SPACING | _SIGMAS | {"solver_order"}),
    ),
    "euler": SamplerFacts(
        "Euler on the probability flow (arXiv 2206.00364)",
        100,
        frozenset(_SCHEDULE | _SPACING | _SIGMAS),
    ),
}
"""Every sampler by name. Steps beyond `steps_max` bring nothing, or do not exist (LCM, TCD)."""


def settings_with_eta(
    sampler: Sampler, settings: Mapping[str, Setting], eta: float | None
) -> dict[str, Setting]:
    """`settings` with the eta that counts; raises InvalidInput where the sampler has none."""
    own = SAMPLERS[sampler].eta
    if own is None:
        if eta is not None:
            raise InvalidInput(
                f"the sampler {sampler!r} has no eta",
                where="eta",
                remedy="leave it out; 'tcd' has one",
            )
        return dict(settings)
    chosen = settings.get("eta", own) if eta is None else eta
    return {**settings, "eta": chosen}
