"""One offline HTML file, and pictures, from the files of a sweep or of a measurement."""

from __future__ import annotations

from onnxtrim.bench.report.page import write_report
from onnxtrim.bench.report.pictures import write_plots
from onnxtrim.bench.report.result_page import write_result_report

__all__ = ["write_plots", "write_report", "write_result_report"]
