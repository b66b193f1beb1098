"""Damaged and malicious files by thousands: what becomes of them, and a list of what is not clean.

    nice -n 19 python benchmarks/fuzz.py --cases 20000 --seed 0

The same seed makes the same case; ``--only SEED`` makes one alone and keeps it. Needs the packages
of the tests. Exit code 1 if a case was not clean.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def main() -> int:
    from fuzz.corpus import MAKERS, build
    from fuzz.guard import BAD, judge, make_case

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, metavar="SEED", help="make this case, and say where")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="demoe-fuzz-"))
    build(place)
    if arguments.only is not None:
        print(make_case(arguments.only, place))
        return 0
    start = time.monotonic()
    counts: Counter[str] = Counter()
    by_name: dict[str, Counter[str]] = {name: Counter() for name in MAKERS}
    seeds = range(arguments.seed, arguments.seed + arguments.cases)
    for verdict in judge(seeds, place, arguments.workers):
        counts[verdict.what] += 1
        by_name[verdict.name][verdict.what] += 1
        if verdict.what in BAD:
            print(f"{verdict.seed} {verdict.name} {verdict.what}: {verdict.words}", flush=True)
    columns = ("opened", "refused", *BAD)
    print(f"{'':22}" + "".join(f"{column:>11}" for column in columns))
    for name, row in [*by_name.items(), ("all", counts)]:
        print(f"{name:22}" + "".join(f"{row[column]:11d}" for column in columns))
    print(f"{counts.total()} cases in {time.monotonic() - start:.0f} s")
    shutil.rmtree(place)
    return int(any(counts[bad] for bad in BAD))


if __name__ == "__main__":
    sys.exit(main())
