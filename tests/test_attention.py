"""What a network looks at, against attention written out by hand."""

import pytest
import torch

from diffusion.attention import watch
from diffusion.unet import UNet, UNetConfig

CONFIG = UNetConfig(
    sample_size=8,
    in_channels=2,
    out_channels=2,
    block_out_channels=(8, 16),
    attention=(False, True),
    attention_head_dim=8,
    cross_attention_dim=6,
    norm_num_groups=4,
)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(CONFIG).eval().requires_grad_(False)


def call(network: UNet, count: int = 2) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    x, context = torch.randn(count, 2, 8, 8, generator=source), torch.randn(count, 5, 6, generator=source)
    return network(x, torch.full((count,), 0.5), context)


def test_all_of_a_cells_attention_goes_to_the_tokens(network):
    with watch(network, 2) as maps:
        call(network)
        seen = maps()
    assert seen.shape == (2, 5, 8, 8) and (seen > 0).all()
    torch.testing.assert_close(seen.sum(1), torch.ones(2, 8, 8))


def test_the_maps_are_the_mean_of_what_every_block_weighs_by(network):
    """Each head's softmax of q k / sqrt(d) in a loop; the blocks see 4 x 4 cells, or 8 x 8."""
    inputs = []
    blocks = [network.down_blocks[1], network.mid_block, network.up_blocks[0]]
    attended = [attention.transformer_blocks[0].attn2 for block in blocks for attention in block.attentions]
    for attention in attended:
        attention.register_forward_pre_hook(lambda module, given: inputs.append(given))
    with watch(network, 2) as maps:
        call(network)
        seen = maps()
    expected = torch.zeros(2, 5, 8, 8)
    for attention, (x, context) in zip(attended, inputs, strict=True):
        q, k = attention.to_q(x), attention.to_k(context)
        for head in torch.arange(q.shape[-1]).split(8):
            weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 8**0.5, 2)  # (2, cells, 5)
            grid = weights.transpose(1, 2).reshape(2, 5, 4, 4)
            share = torch.nn.functional.interpolate(grid, (8, 8), mode="bilinear") / (q.shape[-1] // 8)
            expected += share / len(attended)
    torch.testing.assert_close(seen, expected)


def test_of_a_guided_call_the_half_with_the_prompt_counts(network):
    with watch(network, 2) as maps, watch(network, 4) as all_of_them:
        call(network, count=4)
        torch.testing.assert_close(maps(), all_of_them()[2:])


def test_looking_changes_nothing_and_ends(network):
    before = call(network)
    with watch(network, 2) as maps:
        assert torch.equal(call(network), before)
    call(network)
    maps()
    with pytest.raises(ValueError, match="no call with a prompt"):
        maps()


def test_maps_begin_anew_after_each_look(network):
    with watch(network, 2) as maps:
        call(network)
        first = maps()
        call(network)
        call(network)
        torch.testing.assert_close(maps(), first)
