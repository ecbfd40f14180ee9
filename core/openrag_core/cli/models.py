"""Commands that make and convert checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from openrag_core._extras import need
from openrag_core.cli import render
from openrag_core.cli.console import err, out
from openrag_core.weights import BUNDLED

Layout = Literal["merged", "adapter", "published"]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")]


def upcycle(
    base: Annotated[str, typer.Argument(help="Dense model: bundled, or a folder or name.")],
    output: Output,
    experts: Annotated[int, typer.Option(help="Experts per layer.")] = 8,
    top_k: Annotated[int, typer.Option(help="Experts that serve a token.")] = 2,
    adapter_dim: Annotated[int, typer.Option(help="Width of an expert.")] = 512,
    scaling: Annotated[float, typer.Option(help="Factor on the experts' sum.")] = 0.25,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Save what is added, without the base.")
    ] = False,
) -> None:
    """Make a mixture of experts with reflection tokens out of a dense model, ready to train."""
    need("model", "torch", "transformers", "peft")
    from openrag_core import model  # noqa: PLC0415  (loads torch)
    from openrag_core.model.checkpoints.files import check_new  # noqa: PLC0415

    check_new(output)
    model.OpenRAGConfig(None, experts, top_k, adapter_dim, scaling)  # refuses before the loading
    with err.status("loading the dense model"):
        dense, tokenizer = model.load_dense(base)
    with err.status("adding experts and reflection tokens"):
        mixture = model.upcycle(
            dense, num_experts=experts, top_k=top_k, adapter_dim=adapter_dim, scaling=scaling
        )
        model.add_reflection_tokens(mixture, tokenizer)
    with err.status("saving"):
        if adapter_only:
            model.save(mixture, tokenizer, output, layout="adapter", base=base)
        else:
            model.save(mixture, tokenizer, output)
    out.print(render.mixture(mixture, output))


def convert(
    checkpoint: Annotated[
        str, typer.Argument(metavar="MODEL", help="bundled, or a folder or name.")
    ],
    output: Output,
    layout: Annotated[
        Layout, typer.Option(help="merged: all in one; adapter: without the base; published.")
    ] = "merged",
    base: Annotated[
        str | None, typer.Option(help="Of an adapter-only checkpoint, read or made.")
    ] = None,
) -> None:
    """Save a mixture of experts in another layout; numbers stay as they are stored."""
    need("model", "torch", "transformers", "peft")
    from openrag_core import model  # noqa: PLC0415  (loads torch)
    from openrag_core.model.checkpoints.adapter import is_adapter  # noqa: PLC0415
    from openrag_core.model.checkpoints.files import check_new  # noqa: PLC0415

    check_new(output)
    if layout == "adapter" and base is None and checkpoint == BUNDLED:
        base = BUNDLED
    read_with = base if layout != "adapter" or is_adapter(Path(checkpoint)) else None
    with err.status("loading"):
        mixture, tokenizer = model.load(checkpoint, base=read_with, dtype="auto", device="cpu")
    with err.status("saving"):
        model.save(
            mixture, tokenizer, output, layout=layout, base=base if layout == "adapter" else None
        )
    out.print(render.mixture(mixture, output))
