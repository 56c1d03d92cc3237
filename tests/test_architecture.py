"""What may import what, and what the engine never does."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMAND_LINE = {"__main__", "commands", "info", "measure"}  # `python -m diffusion`, a consumer of the engine
ENGINE = {path.stem: path for path in sorted((ROOT / "diffusion").glob("*.py")) if path.stem not in COMMAND_LINE}
SCRIPTS = [ROOT / "app.py", ROOT / "train.py"]
EVERYTHING = [*sorted((ROOT / "diffusion").rglob("*.py")), *SCRIPTS]
EACH = pytest.mark.parametrize("path", ENGINE.values(), ids=ENGINE)


def parsed(path: Path) -> list[ast.AST]:
    """All that a file does, without what only type checkers read and what fork_rng undoes."""

    def walk(node: ast.AST):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0]):
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return list(walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, in full: `from a import b` gives a and a.b."""
    found = set()
    for node in parsed(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in parsed(path) if isinstance(node, ast.Call)}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_run_one_way():
    modules = {module(path): path for path in EVERYTHING}
    graph = {  # a package, which `from package import module` names too, is no dependency of its own modules
        name: {other for other in imports(path) & modules.keys() if not name.startswith(f"{other}.") and other != name}
        for name, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)  # raises CycleError, naming the cycle


@pytest.mark.parametrize("name", ["samplers", "guidance", "noise"])
def test_samplers_guidance_and_noise_know_of_no_model(name):
    assert not [other for other in imports(ENGINE[name]) if other.startswith("diffusion")]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("config", set()),
        ("schedules", {"config"}),
        ("denoiser", {"schedules"}),
        ("conditioning", {"config", "unet", "words"}),
        ("words", set()),
    ],
)
def test_the_foundations_know_only_what_lies_below(name, allowed):
    own = {other.split(".")[1] for other in imports(ENGINE[name]) if other.startswith("diffusion.")}
    assert own == allowed


@EACH
def test_no_module_of_the_engine_knows_of_the_app(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"gradio", "gradio_client", "fastapi", "app", "train"}
    # `python -m diffusion` may say how to start the app, but not import it either.
    assert not [name for name in imports(path) if name.startswith("diffusion.ui")]


def test_gradio_is_imported_in_the_ui_alone():
    users = [path for path in EVERYTHING if "gradio" in {name.split(".")[0] for name in imports(path)}]
    assert users
    assert all(path.name == "app.py" or "ui" in path.relative_to(ROOT).parts for path in users)


@EACH
def test_references_for_tests_are_not_used_by_the_engine(path):
    """Diffusers and transformers are what the engine is tested against; it reads others' text models, no more."""
    own = {"transformers"} if path.stem == "clip" else set()
    assert not {name.split(".")[0] for name in imports(path)} & {"diffusers", "transformers", "pytest"} - own


def test_generating_needs_neither_the_app_nor_the_references_nor_torchvision():
    """What `import diffusion.pipeline` brings in decides how fast the first picture is there."""
    program = "import sys, diffusion.pipeline; print(*{name.split('.')[0] for name in sys.modules})"
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"gradio", "diffusers", "transformers", "torchvision", "torchmetrics", "matplotlib", "scipy", "PIL"}
    assert not set(out.stdout.split()) & heavy


@EACH
def test_the_engine_neither_prints_nor_draws_progress_bars(path):
    """That is for whoever consumes its generators."""
    assert "print" not in calls(path)
    assert "tqdm" not in {name.split(".")[0] for name in imports(path)}


@EACH
def test_the_engine_leaves_the_global_random_state_alone(path):
    seeds = {"torch.manual_seed", "torch.random.manual_seed", "torch.cuda.manual_seed", "random.seed", "np.random.seed"}
    assert not calls(path) & seeds


@EACH
def test_the_engine_runs_nothing_that_a_checkpoint_brings(path):
    assert not calls(path) & {"torch.load", "pickle.load", "pickle.loads", "eval", "exec"}


@EACH
def test_a_module_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


@EACH
def test_every_public_function_says_what_it_does_and_with_what_types(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    public = [node for node in tree.body if not getattr(node, "name", "_").startswith("_")]
    for node in public:
        assert ast.get_docstring(node), f"{path.stem}.{node.name}"
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns and all(a.annotation for a in arguments), f"{path.stem}.{node.name}"
