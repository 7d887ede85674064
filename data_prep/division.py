"""Divides labelled clips into train, validation and test where their source does not.

A split gets its share of every class. Clips of one group (a person, a recording) are kept together: a model that has
seen the person in training is not tested on new data. Without a pattern for groups each clip is a group of its own.
"""

import collections
import hashlib
import os
import re
from collections.abc import Sequence

from absl import logging

from common import errors, text
from common.clips.clip_store import Division
from data_prep import names, plans

_LISTED = 3  # Paths that a refusal lists.


def divide(plan: plans.Plan, division: Division) -> plans.Plan:
    """Returns a plan whose clips, all of them train before, are divided.

    The groups are taken from the largest to the smallest, those of one size in an order drawn from the seed and the
    group's name; each goes to the split that lacks most of its clips, by class. So a class's clips, where each is a
    group, are within one clip of the shares, and the same files and seed give the same splits on any machine.

    Args:
      plan: of the one split train.
      division: how to divide; a share at least is above 0.

    Raises:
      errors.UserError: for a plan of other splits, clips that the pattern does not match, or a split without clips.
    """
    if set(plan.items) != {"train"}:
        raise errors.UserError(
            "--validation_share and --test_share must be given for clips that have classes and no splits. "
            f"Received: {', '.join(plan.items)}"
        )
    items = plan.items["train"]
    groups = _groups(items, division.group_by)
    counts = {name: collections.Counter(item.label for item in group) for name, group in groups.items()}
    whole = sum(counts.values(), collections.Counter())
    shares = {
        "train": 1 - division.validation_share - division.test_share,
        "validation": division.validation_share,
        "test": division.test_share,
    }
    lacking = {
        split: {label: share * count for label, count in whole.items()} for split, share in shares.items() if share
    }
    split_of: dict[str, str] = {}
    for name in sorted(groups, key=lambda name: (-len(groups[name]), _drawn(division.seed, name))):
        split_of[name] = max(lacking, key=lambda split: sum(n * lacking[split][k] for k, n in counts[name].items()))
        for label, count in counts[name].items():
            lacking[split_of[name]][label] -= count
    chosen = {item: split_of[name] for name, group in groups.items() for item in group}
    divided = {split: tuple(item for item in items if chosen[item] == split) for split in lacking}
    empty = [split for split, clips in divided.items() if not clips]
    if empty:
        raise errors.UserError(
            "Shares must leave clips for every split. "
            f"Received: {text.counted(len(items), 'clip')} in {text.counted(len(groups), 'group')}, "
            f"none for {', '.join(empty)}"
        )
    for label in sorted(whole):
        without = [split for split, clips in divided.items() if all(item.label != label for item in clips)]
        if without:
            logging.warning(
                "%s, %s, has none in %s.",
                plan.class_names[label],
                text.counted(whole[label], "clip"),
                ", ".join(without),
            )
    missing = {split: plan.missing.get(split, ()) for split in divided}
    return plans.Plan(plan.class_names, divided, missing, plan.skipped)


def _groups(items: Sequence[plans.Item], pattern: str) -> dict[str, list[plans.Item]]:
    """Returns name -> clips of each group; refuses clips that the pattern does not match."""
    if not pattern:
        return {item.video_id: [item] for item in items}
    groups: dict[str, list[plans.Item]] = collections.defaultdict(list)
    unmatched = []
    for item in items:
        match = re.search(pattern, item.path)
        if match and match[1] is not None:
            groups[match[1]].append(item)
        else:
            unmatched.append(text.printable(names.as_text(item.path)))
    if unmatched:
        more = f" and {len(unmatched) - _LISTED} more" if len(unmatched) > _LISTED else ""
        raise errors.UserError(
            f"--group_by must match the path of every clip, {pattern!r}. "
            f"Received: {', '.join(unmatched[:_LISTED])}{more}"
        )
    return groups


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(b"%d " % seed + os.fsencode(name)).hexdigest()
