"Make README.md from nbs/index.ipynb, without Quarto. `--write` writes it; without, says whether it is up to date."
import re, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent

def readme():
    "The home page as Markdown: hidden cells and front matter left out"
    nb = nbformat.read(ROOT/'nbs/index.ipynb', 4)
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw' and not re.search(r'^#\|\s*hide', c.source, re.M)]
    for c in nb.cells:
        if c.cell_type == 'code':
            if re.search(r'^#\|\s*echo: false', c.source, re.M): c.source = ''
            c.source = re.sub(r'^#\|.*\n', '', c.source, flags=re.M)
            for o in c.outputs: o.get('data', {}).pop('text/html', None)
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'```(?:python|ipython3)?\n\s*```\n', '', text)
    text = re.sub(r'\]\((?![a-z]+:|#)(\.\./)?', lambda m: '](' if m[1] else '](nbs/', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'

if __name__ == '__main__':
    file, made = ROOT/'README.md', readme()
    if '--write' in sys.argv: file.write_text(made, encoding='utf-8')
    elif file.read_text(encoding='utf-8') != made: sys.exit('README.md is not what nbs/index.ipynb gives: run `make readme`')
