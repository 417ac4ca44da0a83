"""Layer groups: every tensor in exactly one, in the order in which they run, for backbones of every shape."""

from __future__ import annotations

import pytest
import torch

from headstart.config.schema.head import LinearHeadConfig, MlpHeadConfig
from headstart.errors import ConfigError
from headstart.models.classifier import Built, build_classifier, full_name

QUICK = (
    ("test_resnet", 32),
    ("test_vit", 160),
    ("test_efficientnet", 32),
    ("test_convnext", 32),
    ("mobilenetv3_small_050", 32),
    ("test_maxvit", 160),
)
MORE = (
    ("regnetx_002", 32),
    ("densenet121", 32),
    ("vgg11", 32),
    ("inception_v3", 96),
    ("levit_128s", 224),
    ("mixer_s32_224", 224),
    ("swin_tiny_patch4_window7_224", 224),
    ("deit_tiny_distilled_patch16_224", 224),
    ("hrnet_w18_small", 64),
    ("test_byobnet", 32),
    ("test_nfnet", 32),
    ("test_mambaout", 64),
    ("dla34", 64),
    ("xcit_nano_12_p16_224", 224),
    ("efficientformer_l1", 224),
    ("resnetv2_50", 64),
)


def build(name: str, size: int, *, library: str = "timm", classes: int = 7, head: str = "linear") -> Built:
    return build_classifier(
        name=full_name(name, library=library),
        library=library,
        head=LinearHeadConfig() if head == "linear" else MlpHeadConfig(hidden=[11, 5]),
        classes=classes,
        channels=3,
        size=(size, size),
        weights=None,
        seed=0,
    )


def check_map(built: Built) -> None:
    parameters = dict(built.model.named_parameters())
    buffers = dict(built.model.named_buffers())
    listed = [
        name for group in built.layers.groups for name in (*(p.name for p in group.parameters), *group.buffers)
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(parameters) | set(buffers)
    head = built.layers.groups[-1]
    assert head.name == "head"
    assert {p.name for p in head.parameters} == {name for name in parameters if name.startswith("head.")}
    assert sum(group.size for group in built.layers.groups) == sum(p.numel() for p in parameters.values())


@pytest.mark.parametrize(("name", "size"), QUICK)
def test_every_tensor_is_in_one_group(name: str, size: int) -> None:
    built = build(name, size)
    check_map(built)
    assert built.layers.names[0] == "stem"
    assert not built.layers.prefix_problem


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), MORE)
def test_every_tensor_is_in_one_group_for_many_families(name: str, size: int) -> None:
    built = build(name, size)
    check_map(built)
    assert not built.layers.prefix_problem


def test_what_stands_beside_the_classifier_is_neck() -> None:
    sizes = {group.name: group.size for group in build("vgg11", 32).layers.groups}
    assert sizes["head"] == 4096 * 7 + 7
    assert sizes["neck"] == 119_545_856  # pre_logits
    assert "neck" in build("mobilenetv3_small_050", 32).layers.names  # conv_head
    assert "neck" not in build("test_resnet", 32).layers.names


def test_alexnet_from_torchvision() -> None:
    built = build("alexnet", 224, library="torchvision")
    check_map(built)
    assert built.layers.names == ("stem", "block.0", "block.1", "block.2", "block.3", "neck", "head")
    assert built.layers.groups[-1].size == 4096 * 7 + 7


@pytest.mark.parametrize(
    ("name", "size", "problem"),
    [
        ("cait_xxs24_224", 224, "do not run one after another"),
        ("coat_tiny", 224, "do not run one after another"),
        ("pit_ti_224", 224, "timm has no layer groups"),
    ],
)
def test_backbones_without_a_prefix_say_so(name: str, size: int, problem: str) -> None:
    assert problem in build(name, size).layers.prefix_problem


def test_heads() -> None:
    linear, mlp = build("test_resnet", 32).model.head, build("test_resnet", 32, head="mlp").model.head
    assert [tuple(p.shape) for p in linear.parameters()] == [(7, 96), (7,)]
    assert [tuple(p.shape) for p in mlp.parameters() if p.ndim == 2] == [(11, 96), (5, 11), (7, 5)]


def test_building_draws_from_the_seed_and_nothing_else() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, other = build("test_resnet", 32), build("test_resnet", 32)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "library", "said"),
    [
        ("resnet51", "timm", "timm has no such model. Did you mean 'resnet5"),
        ("resnet50.nothing", "timm", "has no weights tag 'nothing'"),
        ("alexnt", "torchvision", "Did you mean 'alexnet'"),
        ("alexnet.V7", "torchvision", "it has IMAGENET1K_V1"),
    ],
)
def test_an_unknown_backbone_gets_near_ones(name: str, library: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        full_name(name, library=library)
    assert said in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 32), ("swin_tiny_patch4_window7_224", 1)])
def test_an_image_size_that_a_backbone_cannot_take(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size: .* cannot take"):
        build(name, size)


@pytest.mark.parametrize("size", [64, 160, 224])
def test_backbones_of_fixed_size_are_built_for_another(size: int) -> None:
    built = build("test_vit", size)
    assert built.model(torch.zeros(1, 3, size, size)).shape == (1, 7)


def test_pooling_changes_the_features() -> None:
    def features(pool: str) -> torch.Tensor:
        built = build_classifier(
            name="test_resnet", library="timm", head=LinearHeadConfig(pool=pool), classes=3, channels=3,
            size=(128, 128), weights=None, seed=0,
        )  # fmt: skip
        built.model.eval()
        return built.model.backbone(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))

    auto, avg, biggest, both = (features(pool) for pool in ("auto", "avg", "max", "catavgmax"))
    assert torch.equal(auto, avg)
    assert not torch.equal(avg, biggest)
    assert both.shape[1] == 2 * avg.shape[1]
    with pytest.raises(ConfigError, match=r"head\.pool=token: test_resnet has no such pooling"):
        features("token")
