"""Wrong answers made from a right one: mutants of a function's syntax tree. Pure functions.

A mutant is a small slip: another operator, comparison, constant or `dim`; a sum for a mean, an
extreme for its opposite or for the first entry; a term, a keyword, an argument or a function left
out; two returned values swapped; an argument that does not count. `mutants(function)` makes them
all, each with the statement that is wrong in it.
"""

import ast
import copy
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator

_OPERATORS = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
}
_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
}
_OTHER_NAMES = {
    "sum": ("mean", "amax"),
    "mean": ("sum", "amax"),
    "max": ("min",),
    "min": ("max",),
    "amax": ("amin",),
    "argmax": ("argmin",),
    "argmin": ("argmax",),
    "maximum": ("minimum",),
    "minimum": ("maximum",),
    "exp": ("log",),
    "log": ("log2", "log10", "exp"),
    "softmax": ("log_softmax", "sigmoid"),
    "log_softmax": ("softmax",),
    "sqrt": ("square",),
    "square": ("abs", "sqrt"),
    "norm": ("sum",),
    "eigvals": ("eigvalsh",),
    "eigvalsh": ("svdvals",),
    "clone": ("detach",),
    "isnan": ("isinf",),
}
_EXTREMES = {"max", "min", "amax", "amin", "argmax", "argmin"}


def mutants(function: Callable, examples: tuple[tuple, ...] = ()) -> Iterator[tuple[str, Callable]]:
    """Every mutant of a function, with its first wrong statement.

    Args:
        function: its source is read; its globals are the mutants' too.
        examples: argument tuples; a mutant keeps one of their values in place of the caller's.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    tree.body[0].args.defaults = []  # every call of a check gives all arguments
    written = {_written(statement) for statement in _statements(tree)}
    for place, node in enumerate(ast.walk(tree)):
        for variant in _variants(node):
            mutated = _with(tree, place, variant)
            changed = [_written(statement) for statement in _statements(mutated)]
            changed = [text for text in changed if text not in written]
            text = changed[-1] if changed else f"without {_written(node)}"
            yield text, _compiled(mutated, function)
    yield from _ignoring(function, examples)


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """The outer ones first."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]


def _variants(node: ast.AST) -> Iterator[ast.AST | list]:
    """What could stand in a node's place by mistake; a list stands for no statement at all."""
    match node:
        case ast.BinOp(left, op, right):
            for other in _OPERATORS.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
            yield from (left, right)
            if isinstance(op, ast.Sub | ast.Div | ast.MatMult | ast.Pow):
                yield ast.BinOp(right, op, left)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.Compare(left, [op], [right]):
            for other in _COMPARISONS.get(type(op), ()):
                yield ast.Compare(left, [other()], [right])
        case ast.If(_, body, orelse):
            yield orelse or ast.Pass()
            yield body
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.Constant(value):
            yield from map(ast.Constant, _other_constants(value))
        case ast.Call():
            yield from _other_calls(node)
        case ast.Attribute(value, "real"):
            yield ast.Attribute(value, "imag", ast.Load())
        case ast.Subscript(value, ast.Tuple([first, second])):
            yield ast.Subscript(value, ast.Tuple([second, first], ast.Load()), ast.Load())
        case ast.Return(ast.Tuple(values)) if len(values) > 1:
            for i in range(len(values)):
                for j in range(i):
                    yield _returning(_exchanged(values, i, j))
                for j in range(len(values)):
                    if i != j:
                        yield _returning([*values[:i], values[j], *values[i + 1 :]])
                yield _returning(values[:i] + values[i + 1 :])
        case ast.Return(value) if value is not None:
            yield ast.Return(ast.UnaryOp(ast.USub(), value))
            yield ast.Return(ast.Tuple([value], ast.Load()))
        case ast.For(_, _, body):
            yield body  # once, whatever it runs over: its variable then is missing or unused


def _other_constants(value: object) -> tuple:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return tuple(sorted({value + 1, value - 1, 0} - {value}))
    if isinstance(value, float):
        return (2 * value, value / 2, 0.0)
    others = {"-inf": ("inf", "0"), "nan": ("0", "inf")}
    return others.get(value, ()) if isinstance(value, str) else ()


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    function = call.func
    for i in range(len(call.keywords)):  # dim, keepdim, minlength, create_graph …
        yield ast.Call(function, call.args, call.keywords[:i] + call.keywords[i + 1 :])
    for i in range(len(call.args)):
        if len(call.args) + len(call.keywords) > 1:
            yield ast.Call(function, call.args[:i] + call.args[i + 1 :], call.keywords)
        for j in range(i):
            yield ast.Call(function, _exchanged(call.args, i, j), call.keywords)
    yield from call.args  # the function left out: exp(x) is x
    if not isinstance(function, ast.Attribute):
        return
    for name in _OTHER_NAMES.get(function.attr, ()):
        yield ast.Call(ast.Attribute(function.value, name, ast.Load()), call.args, call.keywords)
    if isinstance(function.value, ast.Name) and function.value.id in ("torch", "np", "math"):
        return
    yield function.value  # the method left out: x.abs() is x
    if function.attr in _EXTREMES:
        for index in (0, -1):
            yield _entry(function.value, index, along_rows=bool(call.args or call.keywords))


def _entry(value: ast.expr, index: int, along_rows: bool) -> ast.expr:
    place: ast.expr = ast.Constant(index)
    if along_rows:
        place = ast.Tuple([ast.Slice(), place], ast.Load())
    return ast.Subscript(value, place, ast.Load())


def _exchanged(values: list, i: int, j: int) -> list:
    values = list(values)
    values[i], values[j] = values[j], values[i]
    return values


def _returning(values: list) -> ast.Return:
    return ast.Return(ast.Tuple(values, ast.Load()))


def _with(tree: ast.Module, place: int, variant: ast.AST | list) -> ast.Module:
    """A copy of the tree with another node at one place of its walk."""
    mutated = copy.deepcopy(tree)
    target = list(ast.walk(mutated))[place]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST | list:
            return copy.deepcopy(variant) if node is target else self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(mutated))


def _compiled(tree: ast.Module, function: Callable) -> Callable:
    namespace = dict(function.__globals__)
    with warnings.catch_warnings():  # such as one on an int with an index
        warnings.simplefilter("ignore")
        exec(compile(tree, "<mutant>", "exec"), namespace)
    return namespace[function.__name__]


def _ignoring(function: Callable, examples: tuple[tuple, ...]) -> Iterator[tuple[str, Callable]]:
    """One argument does not count: that of an example stands in its place."""
    read = {
        n.id
        for n in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
        if isinstance(n, ast.Name)
    }
    for position, name in enumerate(inspect.signature(function).parameters):
        if name not in read:
            continue  # no answer needs it
        for which, example in enumerate(examples):

            def mutant(*arguments: object, position=position, kept=example[position]) -> object:
                return function(*arguments[:position], kept, *arguments[position + 1 :])

            yield f"{name} is ignored: that of example {which} counts", mutant


def _written(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]
