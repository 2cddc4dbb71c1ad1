"""Weights of the decoder's linear layers in 8 or 4 bits, which is where nine tenths of Phi-3-vision's weights are.

On a CPU by PyTorch's own kernels: 8 bits with a scale for each output, or 4 bits with a scale and a zero for every 64
inputs, both multiplied in bfloat16. On a CUDA GPU by bitsandbytes: LLM.int8() or NF4 (arXiv 2208.07339, 2305.14314).
The vision tower, the projector, the embeddings and the head stay as they are.
"""

import logging

import torch
from torch import nn

from .errors import LoadError

KINDS = ("8bit", "4bit")
LAYERS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")  # of each layer of the decoder
GROUPS = (64, 32)  # inputs that share a scale in 4 bits, of which PyTorch's kernel knows these
OUTPUTS = 16  # of which the kernel for 4 bits takes a multiple
FEW = 32  # rows, up to which the kernel for 8 bits is faster than making the full matrix
BLOCK, BLOCKS = 64, 256  # bitsandbytes: numbers that share a scale, and scales that share one themselves


def check(kind, device, dtype):
    """Refuse what is unknown, or not possible on a torch.device. Raises LoadError."""
    if kind is None:
        return
    if kind not in KINDS:
        raise LoadError(f"quantize is {kind!r}.", 'Give "8bit", "4bit", or None for full precision.')
    if device.type == "cuda":
        if dtype == torch.float32:
            raise LoadError(
                "bitsandbytes does not compute in float32.", 'Give dtype="bfloat16", or leave it out.'
            )
        _bitsandbytes()
    elif device.type != "cpu":
        raise LoadError(
            f"quantize={kind!r} is for CUDA GPUs and CPUs, not for {device.type!r}.",
            'Leave it out, or give device="cpu".',
        )


def settings_for_cuda(kind, dtype):
    """transformers' BitsAndBytesConfig, with which `from_pretrained` makes each layer small as it reads it."""
    from transformers import BitsAndBytesConfig

    skipped = ["lm_head", "model.vision_embed_tokens"]
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


@torch.no_grad()
def quantize_on_cpu(model, kind, dtype):
    """Exchange the linear layers of a Phi3VForCausalLM on the CPU, one by one: the full matrices go as we come along.

    dtype: of all other weights.
    """
    check_sizes(model.config, kind)
    small = {"8bit": Linear8, "4bit": Linear4}[kind]
    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, child in list(parent.named_children()):
                if name in LAYERS:
                    setattr(parent, name, small(child.weight))
    for module in model.modules():  # not `model.to`, which would change the scales, too
        for weight in () if isinstance(module, small) else module.parameters(recurse=False):
            weight.data = weight.data.to(dtype)


def check_sizes(config, kind):
    """Raises LoadError where a model has widths that cannot be put into 4 bits."""
    for rows, columns in shapes(config) if kind == "4bit" else ():
        if rows % OUTPUTS or _group(columns) is None:
            raise LoadError(
                f'quantize="4bit" does not work with a layer of {columns} inputs and {rows} outputs: they have to be '
                f"multiples of {GROUPS[-1]} and {OUTPUTS}.",
                'Give quantize="8bit".',
            )


def nbytes(config, kind, device):
    """Bytes of all layers that are exchanged, and how many numbers they hold. device: its type, such as "cpu"."""
    numbers = [(rows, columns, rows * columns) for rows, columns in shapes(config)]
    if kind == "8bit":
        each = [count + rows * (2 if device == "cpu" else 4) for rows, _, count in numbers]
    elif device == "cpu":
        each = [count // 2 + 4 * count // (_group(columns) or GROUPS[-1]) for _, columns, count in numbers]
    else:
        each = [count // 2 + count // BLOCK + 4 * count // BLOCK // BLOCKS for *_, count in numbers]
    layers = config.num_hidden_layers
    return layers * sum(each), layers * sum(count for *_, count in numbers)


def shapes(config):
    """(outputs, inputs) of the linear layers in one layer of the decoder, in the order of LAYERS."""
    width, inner, head = config.hidden_size, config.intermediate_size, _head(config)
    queries = config.num_attention_heads * head
    return [
        (queries + 2 * config.num_key_value_heads * head, width),
        (width, queries),
        (2 * inner, width),
        (width, inner),
    ]


class Linear8(nn.Module):
    """A linear layer without bias: int8 (O, I) and a bfloat16 scale for each of O outputs.

    weight: float (O, I). Takes (..., I) and gives (..., O) in the same dtype; computes in bfloat16.
    """

    def __init__(self, weight):
        super().__init__()
        # The kernel reads 16 inputs at a time, and beyond the end where there are fewer.
        self.few = FEW if weight.shape[1] % GROUPS[-1] == 0 else 0
        weight = weight.float()
        scale = (weight.abs().amax(1) / 127).clamp(min=1e-30).bfloat16()
        rounded = (weight / scale[:, None].float()).round_().clamp_(-127, 127).to(torch.int8)
        self.weight, self.scale = (nn.Parameter(part, requires_grad=False) for part in (rounded, scale))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        if len(rows) <= self.few:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = nn.functional.linear(rows, self.weight.bfloat16()).mul_(self.scale)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


class Linear4(nn.Module):
    """A linear layer without bias: 4 bits a weight, and a bfloat16 scale and zero for every group of inputs.

    weight: float (O, I). Takes (..., I) and gives (..., O) in the same dtype; computes in bfloat16.
    """

    def __init__(self, weight):
        super().__init__()
        outputs, inputs = weight.shape
        self.group = _group(inputs)
        groups = weight.float().reshape(outputs, -1, self.group)
        low, high = groups.amin(2), groups.amax(2)
        scale = ((high - low) / 15).clamp(min=1e-30).bfloat16()
        zero = (low + 8 * scale.float()).bfloat16()  # what the middle one of 16 steps stands for
        steps = (groups - zero[..., None].float()) / scale[..., None].float()
        steps = steps.round_().add_(8).clamp_(0, 15).to(torch.int32).view(outputs, inputs)
        packed = torch._convert_weight_to_int4pack_for_cpu(steps, 1)
        scales = torch.stack([scale, zero], -1).transpose(0, 1).contiguous()  # (groups, O, 2)
        self.weight, self.scales = (nn.Parameter(part, requires_grad=False) for part in (packed, scales))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1]).bfloat16().contiguous()
        y = torch._weight_int4pack_mm_for_cpu(rows, self.weight, self.group, self.scales)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


def _group(inputs):
    """How many inputs share a scale in 4 bits; None where none of GROUPS fits."""
    return next((size for size in GROUPS if inputs % size == 0), None)


def _head(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _bitsandbytes():
    """Import it, and have it not say at every layer that it computes in float16."""
    try:
        import accelerate  # noqa: F401  (which transformers needs for it)
        import bitsandbytes  # noqa: F401

        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    except Exception as error:  # not there, or built for another CUDA: it fails in many ways
        raise LoadError(
            f"quantize needs a package that cannot be imported ({type(error).__name__}: {str(error)[:80]}).",
            'Install it: pip install "phi3v-helpers[quantize]".',
        ) from error
