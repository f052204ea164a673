"Make README.md from nbs/index.ipynb, without Quarto. `--write` writes it; without, says whether it is up to date."
import re, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent

def from_root(text):
    "Links that are relative to nbs/, made relative to the top"
    return re.sub(r'\]\((?![a-z]+:|#)(\.\./)?', lambda m: '](' if m[1] else '](nbs/', text)

def shown(cell):
    "The cell as the README shows it, or None"
    if cell.cell_type == 'raw' or re.search(r'^#\|\s*hide', cell.source, re.M): return None
    if cell.cell_type == 'markdown': return nbformat.v4.new_markdown_cell(from_root(cell.source))
    if re.search(r'^#\|\s*echo: false', cell.source, re.M):
        return nbformat.v4.new_markdown_cell(from_root('\n\n'.join(o.data['text/markdown'] for o in cell.outputs)))
    return nbformat.v4.new_code_cell(re.sub(r'^#\|.*\n', '', cell.source, flags=re.M))

def readme():
    "The home page as Markdown"
    nb = nbformat.read(ROOT/'nbs/index.ipynb', 4)
    nb.cells = [c for c in map(shown, nb.cells) if c]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'

if __name__ == '__main__':
    file, made = ROOT/'README.md', readme()
    if '--write' in sys.argv: file.write_text(made, encoding='utf-8')
    elif file.read_text(encoding='utf-8') != made: sys.exit('README.md is not what nbs/index.ipynb gives: run `make readme`')
