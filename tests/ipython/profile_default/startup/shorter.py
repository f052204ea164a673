"""With PROC_NB_SHORT=50 the cells of a notebook train for a fiftieth of their steps, so that a test of a whole page takes seconds.

IPython runs this file in every kernel whose IPYTHONDIR is `tests/ipython`. The pages themselves say nothing of it."""
import ast, os

class Shorter(ast.NodeTransformer):
    "Divides numbers of steps: `f(steps=600)`, `dict(warm_steps=300)` and `steps = 400`"
    names = 'steps', 'warm_steps'
    def __init__(self, by): self.by = by

    def shortened(self, value):
        if isinstance(value, ast.Constant) and isinstance(value.value, int):
            return ast.copy_location(ast.Constant(max(4, value.value // self.by)), value)
        return self.visit(value)

    def visit_keyword(self, node):
        node.value = self.shortened(node.value) if node.arg in self.names else self.visit(node.value)
        return node

    def visit_Assign(self, node):
        named = [t.id for t in node.targets if isinstance(t, ast.Name)]
        node.value = self.shortened(node.value) if named and named[0] in self.names else self.visit(node.value)
        return node

if os.environ.get('PROC_NB_SHORT'): get_ipython().ast_transformers.append(Shorter(int(os.environ['PROC_NB_SHORT']))) # noqa: F821
