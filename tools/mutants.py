"""Would the tests notice? Changes one line of a module at a time, in a copy of the tree, and runs that module's tests.

    python tools/mutants.py                     every module of the table below, 10 changes each
    python tools/mutants.py cameras losses      those whose path ends so
    python tools/mutants.py --report            what is known so far, without running anything
    python tools/mutants.py --important         the lines of important_lines.py instead of drawn ones

Changes are small and typical: a term dropped, + for -, a comparison turned round, a constant changed, a product set to
0, a condition negated, a statement removed. They are drawn with a seed, so the same tree gives the same changes. One
that no test fails for has survived. What was found is kept in .mutants.jsonl: an interrupted run goes on where it was,
and after the tests were changed only the survivors are tried again.
"""

import argparse
import ast
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from important_lines import IMPORTANT

ROOT = Path(__file__).parents[1]
RECORD = ROOT / ".mutants.jsonl"

# Module (under src/meshwright) -> the fast tests that are there for it (under tests).
TESTS = {
    "cameras.py": ["test_cameras.py"],
    "mesh.py": ["test_mesh.py", "test_export.py", "test_metrics.py"],
    "views.py": ["test_object_frame.py", "test_views.py"],
    "losses.py": ["test_losses.py", "test_flexicubes.py"],
    "device.py": ["test_device.py"],
    "evaluate/metrics.py": ["test_metrics.py"],
    "color/exposure.py": ["test_bake.py"],
    "color/texels.py": ["test_bake.py"],
    "color/texture.py": ["test_bake.py"],
    "color/texture_fit.py": ["test_bake.py"],
    "color/vertex_colors.py": ["test_color_vertices.py"],
    "color/visibility.py": ["test_color_vertices.py", "test_bake.py"],
    "mesh_files/gltf.py": ["test_export.py", "test_mesh_readers.py"],
    "mesh_files/load.py": ["test_export.py", "test_mesh_readers.py"],
    "mesh_files/obj.py": ["test_export.py", "test_mesh_readers.py"],
    "mesh_files/parts.py": ["test_export.py", "test_mesh_readers.py"],
    "mesh_files/textures.py": ["test_export.py", "test_mesh_readers.py"],
    "model/encoder.py": ["test_encoder.py", "test_model.py"],
    "model/field.py": ["test_field.py", "test_model.py"],
    "model/instantmesh.py": ["test_model.py"],
    "model/triplane.py": ["test_triplane.py", "test_field.py", "test_model.py"],
    "model/volume.py": ["test_volume.py"],
    "raster/coverage.py": ["test_raster.py", "test_raster_opengl.py"],
    "raster/kernels.py": ["test_raster.py", "test_raster_gradients.py", "test_raster_opengl.py"],
    "raster/silhouettes.py": ["test_raster.py", "test_raster_gradients.py"],
    "raster/textures.py": ["test_raster.py", "test_raster_opengl.py"],
    "shape/flexicubes.py": ["test_flexicubes.py", "test_model.py"],
    "shape/hull/agreement.py": ["test_hull.py"],
    "shape/hull/bounds.py": ["test_hull.py"],
    "shape/hull/cones.py": ["test_hull.py"],
    "shape/hull/grid.py": ["test_hull.py"],
    "shape/hull/outlines.py": ["test_hull.py"],
    "shape/refine/fit.py": ["test_refine.py"],
    "shape/refine/terms.py": ["test_refine_terms.py", "test_refine.py"],
    "shape/refine/validation.py": ["test_refine.py"],
    "shape/refine/view_weights.py": ["test_refine_terms.py", "test_refine.py"],
    "shape/remesh.py": ["test_refine.py"],
    "weights/check.py": ["test_weights.py"],
    "weights/hub.py": ["test_weights.py"],
    "weights/mindspore.py": ["test_mindspore.py"],
    "weights/read.py": ["test_weights.py"],
    "weights/start.py": ["test_weights.py"],
    "weights/torch_pickle.py": ["test_weights.py"],
}

_OPPOSITE = {"Lt": ">=", "LtE": ">", "Gt": "<=", "GtE": "<", "Eq": "!=", "NotEq": "==", "In": "not in", "NotIn": "in"}
_SLACK_S = 20.0  # a change may make the tests this much slower, and three times as slow, before it counts as noticed


@dataclass(frozen=True)
class Mutant:
    """One change: the text from ``start`` to ``end`` (offsets in the module) becomes ``new``."""

    module: str
    line: int
    start: int
    end: int
    new: str
    kind: str


@dataclass(frozen=True)
class Verdict:
    """A change in words, what became of it, and which texts of module and tests that holds for."""

    module: str
    line: int
    kind: str
    old: str
    new: str
    killed: bool
    module_hash: str
    tests_hash: str


def mutants(module: str, text: str) -> list[Mutant]:
    """All changes that this tool knows how to make to ``text``."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line.encode()) + 1)
    data = text.encode()  # ast counts columns in bytes
    found: list[Mutant] = []

    def source(node: ast.expr) -> str:
        return data[begin(node) : finish(node)].decode()

    def begin(node: ast.expr | ast.stmt) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def finish(node: ast.expr | ast.stmt) -> int:
        return starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)

    def change(node: ast.expr | ast.stmt, new: str, kind: str) -> None:
        found.append(Mutant(module, node.lineno, begin(node), finish(node), new, kind))

    for node in _code(ast.parse(text)):
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
                change(node, f"({source(left)})", "term dropped")
                sign = "-" if isinstance(operator, ast.Add) else "+"
                change(node, f"(({source(left)}) {sign} ({source(right)}))", "sign")
            case ast.BinOp(left, ast.Mult() | ast.Div(), right):
                change(node, f"(0 * ({source(node)}))", "times 0")
                change(node, f"({source(left)})", "factor dropped")
            case ast.Compare(left, [operator], [right]) if type(operator).__name__ in _OPPOSITE:
                new = _OPPOSITE[type(operator).__name__]
                change(node, f"(({source(left)}) {new} ({source(right)}))", "comparison")
            case ast.BoolOp(operator, [first, *rest]):
                word = " or " if isinstance(operator, ast.And) else " and "
                change(node, "(" + word.join(f"({source(value)})" for value in [first, *rest]) + ")", "and/or")
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                change(node, f"({source(operand)})", "sign")
            case ast.Constant(bool() as value):
                change(node, str(not value), "constant")
            case ast.Constant(int() as value):
                change(node, str(value + 1), "constant")
            case ast.Constant(float() as value):
                change(node, repr(value * 2 if value else 1.0), "constant")
            case ast.If(test) | ast.IfExp(test) | ast.While(test):
                change(test, f"(not ({source(test)}))", "condition")
            case ast.Expr(ast.Call()) | ast.AugAssign():
                change(node, "pass", "statement removed")
            case ast.Call(ast.Attribute(_, "normalize"), [argument, *_], _):
                change(node, source(argument), "call removed")
            case ast.Call(ast.Attribute(value, "clamp" | "abs"), _, _):
                change(node, source(value), "call removed")
    return found


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something: no annotations, decorators, error texts, assertions, imports for the typechecker."""
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            yield from _code(child)


def sample(module: str, text: str, count: int, seed: int) -> list[Mutant]:
    """``count`` changes on different lines, one kind after the other (else half of them would be of constants)."""
    drawn = mutants(module, text)
    random.Random(f"{seed} {module}").shuffle(drawn)
    kinds: dict[str, list[Mutant]] = {}
    for mutant in drawn:
        kinds.setdefault(mutant.kind, []).append(mutant)
    by_line: dict[int, Mutant] = {}
    for mutant in filter(None, itertools.chain(*itertools.zip_longest(*kinds.values()))):
        if len(by_line) < count:
            by_line.setdefault(mutant.line, mutant)
    return sorted(by_line.values(), key=lambda mutant: mutant.line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="ends of module paths, .py or not")
    parser.add_argument("--count", type=int, default=10, help="changes a module (10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="print what is known and run nothing")
    parser.add_argument("--important", action="store_true", help="try the changes of important_lines.py")
    options = parser.parse_args()
    ends = [module.removesuffix(".py") + ".py" for module in options.modules]
    chosen = [module for module in TESTS if not ends or any(f"/{module}".endswith(f"/{end}") for end in ends)]
    if not chosen:
        parser.error(f"no module of the table ends so; it has {', '.join(TESTS)}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        if not options.report:
            _copy_tree(Path(folder))
        if options.important:
            raise SystemExit(_try_important_lines(Path(folder), ends))
        verdicts = []
        for module in chosen:
            verdicts += _judge(module, Path(folder), options.count, options.seed, options.report)
    _print_scores(chosen, verdicts)


def _copy_tree(folder: Path) -> None:
    """Every file that git knows, as it is in the working tree: what is mutated is never the tree itself."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _judge(module: str, folder: Path, count: int, seed: int, report_only: bool) -> list[Verdict]:
    path = Path("src/meshwright") / module
    text = (ROOT / path).read_text(encoding="utf-8")
    tests = [f"tests/{name}" for name in TESTS[module] if (ROOT / "tests" / name).exists()]
    if not tests:
        raise SystemExit(f"{module}: none of its tests exists; bring the table in tools/mutants.py up to date")
    module_hash = _digest(text)
    tests_hash = _digest("".join((ROOT / name).read_text(encoding="utf-8") for name in tests))
    known = _known(module, module_hash)
    has_kernels = "compiled" in text
    limit_s = None
    verdicts = []
    for mutant in sample(module, text, count, seed):
        data = text.encode()
        old = data[mutant.start : mutant.end].decode()
        before = known.get((mutant.line, old, mutant.new))
        if before is not None and (report_only or before.killed or before.tests_hash == tests_hash):
            verdicts.append(before)
            continue
        if report_only:
            continue
        if limit_s is None:
            started = time.monotonic()
            if not _tests_pass(folder, tests, None, has_kernels):
                raise SystemExit(f"{module}: {' '.join(tests)} fail without any change; mend them first")
            limit_s = 3 * (time.monotonic() - started) + _SLACK_S
        (folder / path).write_bytes(data[: mutant.start] + mutant.new.encode() + data[mutant.end :])
        killed = not _tests_pass(folder, tests, limit_s, has_kernels)
        (folder / path).write_bytes(data)
        verdict = Verdict(module, mutant.line, mutant.kind, old, mutant.new, killed, module_hash, tests_hash)
        with RECORD.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")
        print(_in_words(verdict), flush=True)
        verdicts.append(verdict)
    return verdicts


def _try_important_lines(folder: Path, ends: list[str]) -> int:
    """How many changes of `IMPORTANT` the tests named there did not notice."""
    survived = 0
    for module, old, new, tests in IMPORTANT:
        if ends and not any(f"/{module}".endswith(f"/{end}") for end in ends):
            continue
        path = Path("src/meshwright") / module
        text = (ROOT / path).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SystemExit(
                f"{module} holds {old!r} {text.count(old)} times; bring tools/important_lines.py up to date"
            )
        (folder / path).write_text(text.replace(old, new), encoding="utf-8")
        noticed = not _tests_pass(folder, [f"tests/{name}" for name in tests.split()], 300, "compiled" in text)
        (folder / path).write_text(text, encoding="utf-8")
        survived += not noticed
        print(f"{'killed  ' if noticed else 'SURVIVED'} {module}: {old} -> {new}", flush=True)
    print(f"{survived} survived")
    return survived


def _tests_pass(folder: Path, tests: list[str], limit_s: float | None, has_kernels: bool) -> bool:
    """Whether the tests pass in ``folder``; past the limit they do not.

    No byte code is kept: Python takes a file of equal size and second for the same. Numba takes a kernel for the same
    while its own file is, whatever it calls: a changed kernel gets a cache of its own.
    """
    cache = folder / ".numba"
    if has_kernels:
        shutil.rmtree(cache := folder / ".numba-one", ignore_errors=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(cache),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / ".hypothesis"),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with the children that tests may have started
            process.communicate()
            return False
    if process.returncode not in (0, 1, 2):  # 2: a test file could not even be imported
        raise SystemExit(f"pytest ended with code {process.returncode}:\n{output[-2000:]}")
    return process.returncode == 0


def _known(module: str, module_hash: str) -> dict[tuple[int, str, str], Verdict]:
    """The latest verdicts on changes to this text of the module."""
    if not RECORD.exists():
        return {}
    verdicts = [Verdict(**json.loads(line)) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    return {
        (verdict.line, verdict.old, verdict.new): verdict
        for verdict in verdicts
        if (verdict.module, verdict.module_hash) == (module, module_hash)
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _in_words(verdict: Verdict) -> str:
    old, new = (" ".join(text.split())[:60] for text in (verdict.old, verdict.new))
    mark = "killed  " if verdict.killed else "SURVIVED"
    return f"{mark} {verdict.module}:{verdict.line} {verdict.kind}: {old} -> {new}"


def _print_scores(modules: list[str], verdicts: list[Verdict]) -> None:
    print("\n| module | changes | noticed |\n| --- | --- | --- |")
    for module in modules:
        own = [verdict for verdict in verdicts if verdict.module == module]
        if own:
            killed = sum(verdict.killed for verdict in own)
            print(f"| `{module}` | {len(own)} | {killed} ({killed / len(own):.0%}) |")
    killed = sum(verdict.killed for verdict in verdicts)
    print(f"| all | {len(verdicts)} | {killed} ({killed / max(len(verdicts), 1):.0%}) |")
    for verdict in verdicts:
        if not verdict.killed:
            print(_in_words(verdict))


if __name__ == "__main__":
    main()
