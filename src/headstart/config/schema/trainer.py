"""How long and on what a run trains, and what its loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.config.schema.option import option


@dataclass
class TrainerConfig:
    """Budget, machine and stopping; names as in lightning.pytorch.Trainer where it has them."""

    max_epochs: int | None = option(None, "Budget in epochs.", least=1, auto="10 where max_steps is not set either")
    max_steps: int | None = option(None, "Budget in steps, in place of max_epochs.", least=1, auto="no limit")
    max_time: str | None = option(
        None, "Wall clock after which training stops, as DD:HH:MM:SS, on top of the budget.", auto="no limit"
    )
    accelerator: str = option("auto", "`auto` takes a GPU where there is one.", choices=("auto", "cpu", "gpu"))
    devices: int = option(
        1,
        "Processes that train together (DDP): one per GPU, or on a CPU one per share of the threads. A batch is "
        "divided among them; batch normalisation sees each share by itself.",
        least=1,
    )
    precision: str = option(
        "auto",
        "`auto`: mixed bfloat16 on a GPU that has it, mixed float16 on one that has not, float32 on a CPU.",
        choices=("auto", "32-true", "bf16-mixed", "16-mixed"),
    )
    threads: int | None = option(
        None, "CPU threads of a run; another number gives other bits.", least=1, auto="the machine's cores"
    )
    deterministic: bool = option(False, "Refuse operations that have no deterministic form.")
    gradient_clip_val: float | None = option(
        None, "Largest norm of the whole gradient.", above=0, auto="no clipping"
    )
    micro_batch_size: int | None = option(
        None,
        "Images that go through the model at once: a larger batch is made of several such, whose gradients are "
        "added up, so that steps and rates stay those of data.batch_size with a small batch's memory. Batch "
        "normalisation sees each by itself, and mixup, CutMix and dropout draw anew for each.",
        least=1,
        auto="whole batches",
    )
    grad_checkpointing: bool = option(
        False,
        "Keep the backbone's activations at a few places alone and compute the others again where the gradient "
        "needs them: less memory for about a third more time. For models of timm that have it.",
    )
    channels_last: bool | None = option(
        None,
        "Keep images and kernels with the channels last in memory, which is faster for some backbones and slower "
        "for others; other last bits.",
        auto="measured at the start of a run of 200 steps or more, and kept in `measured`; else not",
    )
    compile: str = option(
        "none",
        "torch.compile of the backbone, in this mode; it takes a minute before the first step and pays on long "
        "runs. Batches of another size than most, as the last of an epoch, run as they are.",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    ema_decay: float | None = option(
        None,
        "Validate, keep and test a moving average of the weights: average = d x average + (1 - d) x weights after "
        "each step, with d = min(ema_decay, (1 + t) / (10 + t)) in step t, from 0, of a layer group's training.",
        above=0,
        below=1,
        auto="the weights themselves",
    )
    monitor: str = option(
        "auto",
        "Validation metric that chooses the checkpoint and stops early; `auto` is val/accuracy_micro, "
        "val/map_macro where an image has several labels, val/auroc of data.positive, val/r2 of numbers.",
    )
    threshold: Any = option(
        None,
        "Probability above which a label (several per image, or data.positive) counts as predicted: a number, or "
        "`validation`: at each validation the one of best F1 there, which the test of those weights uses.",
        above=0,
        below=1,
        auto="validation; 0.5 with data.refit_on_val; nothing where there are no such labels",
    )
    checkpoint: str = option(
        "best", "Which weights are tested: the best by `monitor`, or the last.", choices=("best", "last")
    )
    test: bool = option(
        True, "Test at the end; without it a run has validation metrics only, as a trial of a search should."
    )
    early_stopping_patience: int | None = option(
        None,
        "Epochs without a better `monitor` after which training stops; counted from where the last phase begins.",
        least=1,
        auto="never",
    )
    progress: str = option(
        "auto",
        "`bar`: a live bar; `lines`: a line per epoch; `none`; `auto`: a bar on a terminal, lines elsewhere.",
        choices=("auto", "bar", "lines", "none"),
    )
    pictures: int = option(
        48,
        "Test images that the run got wrong, kept as small pictures for reports (pictures.parquet); 0: none.",
        least=0,
    )


@dataclass
class LossConfig:
    """What is minimised."""

    name: str = option(
        "auto",
        "`auto`: cross-entropy where an image has one class, binary cross-entropy over the classes where it "
        "may have several and for data.positive, mse where the targets are numbers. `focal` (Lin et al. 2017, eq. "
        "5) is for classes; `mse`, `mae` and `smooth_l1` are of targets with mean 0 and standard deviation 1.",
        choices=("auto", "cross_entropy", "binary_cross_entropy", "focal", "mse", "mae", "smooth_l1"),
    )
    gamma: float | None = option(
        None,
        "Of the focal loss: how much less what is already right counts; 0 is cross-entropy.",
        least=0,
        auto="2.0 where loss.name=focal",
    )
    label_smoothing: float = option(
        0.0,
        "Share of the target spread evenly over the classes (Szegedy et al. 2016, eq. 2).",
        least=0,
        below=1,
    )
    class_weights: Any = option(
        "none",
        "`none`; `balanced`: inversely to how often a class occurs in the training split; or a list, one per "
        "class (several labels per image: the weight of its positives). The focal loss's alpha.",
        above=0,
    )


OPTIONS = {"default": TrainerConfig}
