"""Models that are asked and not trained: in inference mode, without gradients of their weights, and left as they were.

A module of PyTorch carries its mode and its weights' `requires_grad`, so both must be set and restored.
"""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

_in_progress: list[set[nn.Module]] = []  # What each `frozen` has frozen, the one that began last at the end.


@contextlib.contextmanager
def frozen(function: Callable[..., object], weights: bool = True) -> Iterator[None]:
    """Puts every module that a function calls into inference mode and its weights out of autograd's sight.

    Each is left as it was. What the function holds (itself, the object of a bound method, attributes, arguments of a
    partial, variables of a closure, globals that it names) is frozen at once; any other module when it is first called,
    before it computes. What was compiled runs as it was written: compiled code sees no hook, neither those that freeze
    nor those of a layer.

    Args:
      function: any callable.
      weights: False leaves the weights in autograd's sight.
    """
    seen: set[nn.Module] = set()
    with contextlib.ExitStack() as stack:

        def freeze(module: nn.Module, _: object = None) -> None:
            # Within another `frozen` that began later, the module is that one's: its state now is not its own.
            if module not in seen and _in_progress[-1] is seen:
                seen.update(module.modules())
                stack.enter_context(_frozen_module(module, weights))

        _in_progress.append(seen)
        stack.callback(_in_progress.pop)
        for held in _held(function):
            if isinstance(held, nn.Module):
                freeze(held)
        with _not_compiled(), nn.modules.module.register_module_forward_pre_hook(freeze):
            yield


@contextlib.contextmanager
def _not_compiled() -> Iterator[None]:
    if "torch._dynamo" not in sys.modules:  # Whatever compiles imports it, which takes seconds.
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # A hook on all modules may see a wrapper and what is in it.
        warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
        yield


def _held(function: Any) -> Iterator[Any]:
    """Yields a function and what it holds, one level deep but for partials."""
    if isinstance(function, functools.partial):
        yield from (*function.args, *function.keywords.values())
        yield from _held(function.func)
        return
    yield function
    yield getattr(function, "__self__", None)
    yield from vars(function).values() if hasattr(function, "__dict__") else ()
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # A variable that has no value yet.
            yield cell.cell_contents
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    yield from (function.__globals__[name] for name in names if name in function.__globals__)


@contextlib.contextmanager
def _frozen_module(model: nn.Module, weights: bool) -> Iterator[None]:
    """Freezes one module, with all in it, and its weights if `weights`; puts back what each was."""
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if weights and parameter.requires_grad]
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)
