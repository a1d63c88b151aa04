"""The house stands: imports point down, and what belongs in one file is in no other. Read from the syntax trees."""

from __future__ import annotations

import ast

import pytest
from conftest import PACKAGE, ROOT

from numconv.methods import cuda_methods
from numconv.methods import methods as cpu_methods

# What methods are made of: no method itself.
PARTS = {
    "cpu.blas",
    "cpu.panel",
    "cpu.window",
    "cpu.window_axes",
    "cpu.blocks",
    "cpu.segments",
    "cpu.operands",
    "cpu.direct",
    "cpu.repair",
    "cpu.fourier",
    "cpu.overlap",
    "cpu.tile_rows",
    "cpu.transforms",
    "cpu.pixel_tiles",
    "cpu.channel_runs",
    "cpu.channel_tiles",
    "cpu.tile_choice",
    "cpu.packing",
    "cpu.row_tiles",
    "cpu.row_strips",
    "cpu.channel_lanes",
    "cpu.plane_lanes",
    "cpu.interleave",
    "cpu.toom_cook",
    "cpu.winograd_blocks",
    "cpu.minimal_filtering",
    "cuda.tile",
    "cuda.strip",
    "cuda.tiling",
    "cuda.strip_geometry",
    "cuda.wide_tile",
    "cuda.wide_geometry",
    "cuda.tensor_tile",
    "cuda.tensor_core",
    "cuda.records",
    "cuda.tf32",
    "cuda.products",
    "cuda.pack",
    "cuda.place",
    "cuda.arrays",
    "cuda.kernels",
    "cuda.cublas",
    "cuda.driver",
}


def table():
    """Every method, of the CPU and of a GPU."""
    return (*cpu_methods(), *cuda_methods())


METHOD_FILES = {method.__name__.removeprefix("numconv.") for method in table()}
# From the roof down: a module imports only from lower floors. A new one must be given its place.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"d2l", "functional", "signal", "ndimage", "explain"},
    {"transposed", "gradients", "bias_gradients", "modes", "quantized", "pooling", "patches", "planning"},
    {"adjoint", "pool_windows"},
    {"dialect", "axes"},
    {"plans"},
    {"planner"},
    {"cpu.phased_tiles", "cuda.phased"},
    {"phased"},
    {"phases", "cuda.launch", "calibration"},
    {"methods"},
    METHOD_FILES,
    {"testing", "peaks", "cuda.narrow", "cuda.sums"},
    {"narrow", "cpu.minimal_filtering", "cpu.fourier"},
    {"cpu.winograd_blocks", "cpu.tile_rows", "cpu.packing", "cpu.tile_choice"},
    {
        "cpu.overlap",
        "cpu.pixel_tiles",
        "cpu.channel_tiles",
        "cpu.row_tiles",
        "cpu.row_strips",
        "cpu.channel_lanes",
        "cpu.plane_lanes",
        "cpu.repair",
    },
    {"cpu.channel_runs"},
    {"cpu.blocks", "cpu.segments", "cpu.direct", "cuda.tile", "cuda.strip", "cuda.wide_tile", "cuda.records"},
    {"cuda.strip_geometry", "cuda.wide_geometry", "cuda.tensor_tile", "cuda.products", "cuda.tf32"},
    {"cuda.pack", "cuda.tiling", "cuda.place"},
    {"cuda.arrays"},
    {
        "cpu.window",
        "cpu.panel",
        "cpu.blas",
        "cpu.interleave",
        "cpu.rounding",
        "cpu.transforms",
        "cpu.pool",
        "accuracy",
        "reference",
        "rank_one",
    },
    {"cpu.operands", "cpu.window_axes"},
    {"cpu.simd"},
    {"cpu.toom_cook"},
    {"method"},
    {"validate"},
    {"foreign"},
    {"cuda.kernels", "cuda.cublas", "cuda.tensor_core"},
    {"cuda.driver"},
    {"jit"},
    {"aligned"},
    {"machine", "problem", "cache"},
    {"profile"},
    {"version"},
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Packages of rooms: the command line's files may use one another, and a folder's own file is empty.
FOLDERS = {"cli", "cpu", "cpu.simd", "cuda"}


def name_of(path):
    """A file's name as in FLOORS: cpu/loops.py is cpu.loops, and all of cli/ is cli, all of cpu/simd/ cpu.simd."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] == "cli":
        return "cli"
    return "cpu.simd" if parts[:2] == ("cpu", "simd") else ".".join(parts)


SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {path: tree for path, tree in SOURCES.items() if not (path.name == "__init__.py" and path.parent != PACKAGE)}
EXISTING = {name_of(path) for path in MODULES}

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def absolute(path, node):
    """What an import statement takes, as dotted names from the top."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module.split(".") if node.module else []
    if node.level:
        package = ["numconv", *path.relative_to(PACKAGE).parent.parts]
        module = package[: len(package) - node.level + 1] + module
    return [".".join([*module, alias.name]) for alias in node.names]


def imports(path):
    """Everything that a file imports, at its top or inside a function."""
    nodes = (node for node in ast.walk(MODULES[path]) if isinstance(node, (ast.Import, ast.ImportFrom)))
    return [name for node in nodes for name in absolute(path, node)]


def packages(path):
    """The first part of each import."""
    return {dotted.partition(".")[0] for dotted in imports(path)}


def room(dotted):
    """The module of the package that a dotted name lies in, or None outside the package."""
    top, *parts = dotted.split(".")
    if top != "numconv":
        return None
    if parts and parts[0] == "cli":
        return "cli"
    if parts[:2] == ["cpu", "simd"]:
        return "cpu.simd"
    while parts and ".".join(parts) not in EXISTING:
        parts.pop()
    return ".".join(parts) or "__init__"


def attributes(path):
    """Every dotted name that a file uses, such as os.environ."""
    return {ast.unparse(node) for node in ast.walk(MODULES[path]) if isinstance(node, ast.Attribute)}


@each_module
def test_every_module_has_its_floor(path):
    assert name_of(path) in FLOOR, "say in FLOORS where it stands"


@each_module
def test_imports_point_down(path):
    here = name_of(path)
    for dotted in imports(path):
        there = room(dotted)
        if there is None or (there == here and here in FOLDERS):
            continue
        assert FLOOR[there] > FLOOR[here], f"{here} imports {dotted}, which is not below it"


@pytest.mark.parametrize("method", table(), ids=lambda method: method.__name__)
def test_a_method_imports_no_other_method_no_dialect_and_no_planner(method):
    path = next(path for path in MODULES if f"numconv.{name_of(path)}" == method.__name__)
    taken = {room(dotted) for dotted in imports(path)} - {None}
    assert taken <= {"accuracy", "aligned", "jit", "machine", "method", "problem", "rank_one", "cpu.simd", *PARTS}


def test_the_floors_name_no_module_that_is_gone():
    assert set(FLOOR) - EXISTING - FOLDERS == set()


@each_module
def test_the_environment_is_read_in_jit_and_machine_alone(path):
    if name_of(path) in ("jit", "machine"):
        return
    assert not {"os.environ", "os.getenv", "os.environb", "os.putenv"} & attributes(path)
    assert not {"os.environ", "os.getenv"} & set(imports(path))


@each_module
def test_only_simd_emits_llvm_ir(path):
    if name_of(path) not in ("cpu.simd", "cuda.tensor_core"):
        assert not [dotted for dotted in imports(path) if dotted.startswith(("llvmlite.ir", "numba.extending"))]
        assert "numba.extending" not in attributes(path)


@each_module
def test_only_jit_compiles_and_asks_numba_for_threads(path):
    if name_of(path) in ("jit", "cuda.driver"):
        return
    compilers = {"njit", "jit", "vectorize", "guvectorize", "stencil", "cfunc", "cuda"}
    threads = {"set_num_threads", "get_num_threads", "threading_layer", "config"}
    names = {f"numba.{name}" for name in compilers | threads}
    assert not names & (set(imports(path)) | attributes(path))


def test_one_loop_runs_on_threads():
    assert [path.name for path in MODULES if "numba.prange" in imports(path)] == ["shares.py"]


@each_module
def test_only_jit_takes_locks(path):
    if name_of(path) != "jit":
        assert not packages(path) & {"threading", "_thread", "multiprocessing"}


@each_module
def test_the_library_imports_neither_scipy_but_for_its_transforms_nor_torch(path):
    if name_of(path) not in ("cli", "__main__"):
        assert not packages(path) & {"torch", "rich", "matplotlib", "skimage"}
        assert not packages(path) & {"scipy"} or name_of(path) == "cpu.transforms"


def test_of_scipy_only_its_transforms_are_taken():
    (path,) = (path for path in MODULES if name_of(path) == "cpu.transforms")
    assert {name for name in imports(path) if name.startswith("scipy")} == {"scipy.fft"}


FILES = sorted(path for folder in ("numconv", "tests", "bench") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_under_400_lines(path):
    lines = path.read_text().count("\n")
    assert lines < 400, "one file, one idea: split it"
