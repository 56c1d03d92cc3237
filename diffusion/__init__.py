"""Diffusion Lab's engine: one denoiser, every schedule, every sampler."""

__version__ = "0.1.0"
