"""Code that makes a picture and nothing else, known by its syntax: notebooks and pages fold it."""

import ast


def only_draws(source: str) -> bool:
    r"""Whether a cell's code makes a picture and nothing else that a reader would look for.

    Example:
        >>> only_draws("fig, (ax,) = plots.figure(1)\nplots.show(fig, alt='x')")
        True
        >>> only_draws("plots.show(fig, alt='x')\nclaim('it holds', True)")
        False
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic
        return False
    drawing = {"plots", "widgets"}
    return bool(statements) and all(_draws(statement, drawing) for statement in statements)


def _draws(statement: ast.stmt, drawing: set[str]) -> bool:
    """Whether a statement uses nothing but what `drawing` names, to which its results are added."""
    match statement:
        case ast.Expr(value=ast.Call(func=called)):
            return _root(called) in drawing or _marks(called)
        case ast.Assign(value=ast.Call(func=called), targets=targets):
            if _root(called) not in drawing:
                return False
            drawing |= _names(*targets)
            return True
        case ast.For(target=target, iter=over, body=body, orelse=[]):
            if not _names(over) & drawing:
                return False
            drawing |= _names(target)
            return all(_draws(inner, drawing) for inner in body)
    return False


def _marks(called: ast.expr) -> bool:
    """Whether it is `ex.prediction.mark`, which draws the learner's number on a figure."""
    return _root(called) == "ex" and isinstance(called, ast.Attribute) and called.attr == "mark"


def _root(called: ast.expr) -> str | None:
    """The name at the left end of `a.b(c)[d].e`."""
    while not isinstance(called, ast.Name):
        match called:
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
                called = inner
            case _:
                return None
    return called.id


def _names(*expressions: ast.AST) -> set[str]:
    found = (node for expression in expressions for node in ast.walk(expression))
    return {node.id for node in found if isinstance(node, ast.Name)}
