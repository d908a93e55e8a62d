"""`soralab data`: the real data sets that chapters may be trained on: listed, fetched, checked."""

from __future__ import annotations

from soralab.command.arguments import verb


def declare(verbs):
    """Its arguments; returns its parser."""
    data = verb(verbs, "data", "list, fetch or check the real data sets that chapters may be trained on")
    data.add_argument("act", choices=("list", "get", "check"), help="what there is, fetch one, or compare its files")
    data.add_argument("names", nargs="*", metavar="NAME", help="such as mnist (get takes at least one; check: all)")
    return data


def run(options) -> int:
    """Do it; returns 2 where something that should be there is not, or is not as it was published."""
    from soralab.datasets.registry import DATASETS, dataset

    sets = [dataset(name) for name in dict.fromkeys(options.names)]
    if options.act == "get":
        if not sets:
            raise ValueError(f"data get takes the NAME of a set: one of {', '.join(DATASETS)}")
        for one in sets:
            _get(one)
        return 0
    if options.act == "check":
        return _check(sets)
    _list(sets or list(DATASETS.values()))
    return 0


def _list(sets) -> None:
    """A line a set: its name, how much of it is here, how much is fetched, what it is; then its terms and chapters."""
    from soralab.datasets.registry import root
    from soralab.datasets.shelf import row, state

    print(f"in {root()} (SORALAB_DATA):\n")
    for one in sets:
        name, what, chapters, licence, size = row(one)
        print(f"{name:17s}{state(one):8s}{size:>11s}   {what}")
        print(f"{'':39s}{licence}{f'; {one.home}' if one.home else ''}; chapter{'s' * (',' in chapters)} {chapters}")


def _get(one) -> None:
    from soralab.datasets.shelf import get, said
    from soralab.training.progress import progress

    silent = {} if one.files else {"disable": True}  # a set that is put there by hand
    with progress(total=one.size or None, desc=one.name, unit="B", unit_scale=True, **silent) as bar:
        got: dict[str, int] = {}

        def tell(file, count: int) -> None:
            got[file.path] = count
            bar.update(sum(got.values()) - bar.n)

        folder = get(one, tell)
    print(f"{one.name} is in {folder}: {said(one)}")


def _check(sets) -> int:
    """Print what is right and what is not; without names, of all sets that are here."""
    from soralab.datasets.registry import DATASETS, root
    from soralab.datasets.shelf import check, state

    found = sets or [one for one in DATASETS.values() if state(one) != "none"]
    if not found:
        print(f"no data set is in {root()}: `soralab data list` shows what there is")
    broken = False
    for one in found:
        right, wrong = check(one)
        print("\n".join(f"{one.name:17s}{line}" for line in (*right, *(f"MEND  {line}" for line in wrong))))
        broken |= bool(wrong)
    return 2 if broken else 0
