"""A web page that reads expressions in the visitor's browser, from a camera or a picture.

python -m pipeline.page                                    serve it on this computer until Ctrl-C
python -m pipeline.page --networks exported/mine.onnx
python -m pipeline.page --out public                       the files, for a web server
"""

from pipeline import cli
from pipeline.settings import PageSettings

if __name__ == "__main__":
    cli.run(PageSettings, "pipeline.steps.page:page")
