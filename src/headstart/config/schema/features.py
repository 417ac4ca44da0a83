"""Features of what is frozen: computed once and used again, in this run and in later ones."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option


@dataclass
class FeaturesConfig:
    """How the features of a wholly frozen backbone, or the activations above a frozen part, are kept."""

    use: bool | None = option(
        None,
        "Fit the head on features that are computed once, instead of running the frozen backbone in every epoch.",
        auto="wherever only the head trains and the images are not augmented at random",
    )
    views: int | None = option(
        None,
        "Fixed augmented versions of each training image, one after the other in the epochs, so that features can "
        "be kept with data.augment too.",
        least=1,
        auto="none: data.augment draws anew in each epoch",
    )
    dtype: str = option(
        "float32",
        "How features are kept; float16 takes half the room and is marked `within tolerance` in the record.",
        choices=("float32", "float16"),
    )
    batch_size: int = option(
        64, "Images that go through the backbone at once; part of what names a cache.", least=2
    )
    prefix: bool | None = option(
        None,
        "Where only the lower part of the backbone is frozen, keep the activations at the cut.",
        auto="where that fits, and a short measurement says that it is faster",
    )
    cache: bool = option(True, "Keep features on disk for later runs; without it they last as long as the run.")
    cache_gb: float = option(20.0, "Room that the features of all data may take in the cache folder.", above=0)
