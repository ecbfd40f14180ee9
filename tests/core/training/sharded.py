"""Run by torchrun: a mixture sharded over the processes, against the same one whole."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from openrag_core.training import read_recipe
from openrag_core.training.losses import batch_losses
from openrag_core.training.train import encode_sources, make_model
from openrag_core.training.trainer import Collate, put_trained_state, trained_state


def gradients(model: nn.Module, batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Mean over the batches, as the processes of torchrun average them."""
    for batch in batches:
        loss, *_ = batch_losses(model, batch, router_logits=True)
        (loss / len(batches)).backward()
    return {
        name: parameter.grad.full_tensor()
        if isinstance(parameter.grad, DTensor)
        else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def main() -> None:
    """Compare gradients, then put the trained tensors back into the shards."""
    distributed.init_process_group("gloo")
    torch.manual_seed(0)  # the same model in every process
    recipe = read_recipe(Path(sys.argv[1]))
    whole, tokenizer = make_model(recipe, torch.device("cpu"))
    cut, _ = make_model(recipe, torch.device("cpu"))
    cut.load_state_dict(whole.state_dict())
    rows = encode_sources(recipe, tokenizer, recipe.rows).rows
    batches = [Collate(0)(rows[start : start + 4]) for start in (0, 4)]
    expected = gradients(whole, batches)

    mesh = init_device_mesh("cpu", (2,))
    for layer in cut.get_base_model().get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(cut, mesh=mesh)
    found = gradients(cut, [batches[distributed.get_rank()]])
    assert all(isinstance(parameter, DTensor) for parameter in cut.parameters())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3)

    put_trained_state(cut, {name: t + 1 for name, t in trained_state(whole).items()})
    gathered = {n: p.full_tensor() for n, p in cut.named_parameters() if p.requires_grad}
    for name, tensor in trained_state(whole).items():
        torch.testing.assert_close(gathered[name], tensor + 1)
    sys.stdout.write("equal\n")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
