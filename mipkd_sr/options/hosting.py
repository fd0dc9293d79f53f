"""Options that another program has read: BasicSR's own, or a project's that follows them."""

from collections.abc import Mapping
from typing import Any

from mipkd_sr.options.checking import check
from mipkd_sr.options.forms import Key, Section, sets_of
from mipkd_sr.options.keys import ADDED, TEST, TRAIN

IN_ANOTHER_LOOP = (
    "The training loop is not this package's: a resumed run starts its epoch again, a signal stops it without saving, "
    'the last incomplete batch of an epoch is left out and images are not looked at before the start; with '
    'mipkd_sr.train.main, or `mipkd train -opt FILE`, the same option file has none of that.'
)
"""The warning for a model that another program trains."""


def form_of(opt: Mapping[str, Any]) -> Section:
    """The form that a run's options have."""
    return TRAIN if opt['is_train'] else TEST


def is_complete(opt: Mapping[str, Any], form: Section) -> bool:
    """Whether every key that has a default is there, as ``load_options`` leaves it."""
    for name, entry in form.keys.items():
        if isinstance(entry, Key) and name not in opt:
            return False
        if isinstance(entry, Section) and name in opt and not is_complete(opt[name], entry):
            return False
        if isinstance(entry, Section) and name not in opt and not entry.optional:
            return False
    return True


def complete_hosted(opt: dict[str, Any]) -> None:
    """Check options that BasicSR's ``parse_options`` has read, and fill in this package's defaults, in place."""
    holders = [(opt, ADDED['run']), (opt.get('path'), ADDED['path'])]
    holders += [(one, ADDED['dataset']) for dataset in (opt.get('datasets') or {}).values() for one in sets_of(dataset)]
    form = form_of(opt)
    aside = [
        (holder, {name: holder.pop(name) for name in names if name in holder})
        for holder, names in holders
        if isinstance(holder, dict)
    ]
    try:
        check(opt, form)
    finally:
        for holder, values in aside:
            holder.update(values)
