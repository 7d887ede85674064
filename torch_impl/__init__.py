"""The PyTorch build; `from torch_impl import explain_clip` is its shortest use. The package alone loads little."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_impl.one_clip import explain_clip as explain_clip

__all__ = ["explain_clip"]


def __getattr__(name: str) -> Any:
    if name != "explain_clip":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch_impl import one_clip

    return one_clip.explain_clip
