"""Which device and which numbers to compute with on this machine."""

from __future__ import annotations

import torch

from openrag_core.errors import ConfigError

_DTYPES = ("float32", "float16", "bfloat16")
_BF16_CHIPS = ("avx512_bf16", "amx_bf16")


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or else the GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch raises either
        other = torch.accelerator.current_accelerator(check_available=True)
        here = f"{other.type} or cpu" if other else "cpu"
        raise ConfigError(f"there is no device {str(name)!r} here: give {here}") from error


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or else bfloat16 where the device multiplies it natively.

    Raises:
        ConfigError: The dtype is unknown.
    """
    if dtype is None:
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)} or auto; got {dtype!r}")
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(chip) for chip in _BF16_CHIPS)
