"""The sheet of the report's page: screen, narrow screen, print and PDF."""

from typing import Final

STYLE: Final = """
:root{--ink:#1b2430;--muted:#5c6773;--line:#e1e5ea;--paper:#fff;--tint:#f5f7f9;--green:#1d6b46;--green-bg:#e5f3ec;
--red:#9c2525;--red-bg:#fbe9e9;--amber:#7a5200;--amber-bg:#fdf3dc;--blue:#22527b;--blue-bg:#e7f0f8}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:var(--tint);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC","Noto Sans SC","PingFang SC",
"Hiragino Sans GB","Microsoft YaHei","WenQuanYi Micro Hei",sans-serif}
header,nav,main,footer{max-width:1120px;margin:0 auto;padding:0 28px}
header{padding-top:44px}
.kicker{color:var(--green);font-weight:600;letter-spacing:.06em;text-transform:uppercase;font-size:13px;margin:0}
h1{font-size:32px;line-height:1.2;margin:6px 0 4px;overflow-wrap:anywhere}
h2{font-size:21px;margin:0 0 12px;display:flex;align-items:center;gap:12px}
h3{font-size:16px;margin:22px 0 6px}
.num{flex:none;width:30px;height:30px;border-radius:50%;background:var(--green-bg);color:var(--green);
display:inline-flex;align-items:center;justify-content:center;font-size:15px}
.muted{color:var(--muted)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:24px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:16px;
display:flex;flex-direction:column;gap:6px;align-items:flex-start}
.tile .label{color:var(--muted);font-size:13px}
.tile .value{font-size:23px;font-weight:650;line-height:1.2;overflow-wrap:anywhere}
nav{margin-bottom:20px}
nav ol{columns:3;column-gap:28px;background:var(--paper);border:1px solid var(--line);border-radius:12px;
padding:16px 16px 16px 40px;margin:0;font-size:15px}
nav .more{margin:8px 0 0;font-size:14px}
a{color:var(--blue)}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:24px 26px;margin:0 0 20px}
section p{max-width:76ch}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.4;margin:10px 0}
th,td{text-align:left;vertical-align:top;padding:5px 10px;border-bottom:1px solid var(--line)}
thead th{color:var(--muted);font-weight:600;font-size:13px}
tbody th{font-weight:500;width:28%}
tbody tr:last-child>*{border-bottom:0}
td{overflow-wrap:anywhere}
tr.missing td:nth-child(2),tr.not td:nth-child(2){color:var(--muted)}
.figures td:last-child,.verdicts td:last-child,.verdicts td:nth-child(2){white-space:nowrap}
.verdicts td:first-child code{font-size:12.5px}
.plain tbody th{width:auto}.plain td{min-width:3em}
.crosswalk tbody th{width:16%}.crosswalk td:nth-child(2){width:34%}.crosswalk td:nth-child(3){width:26%}
.crosswalk code{font-size:12px}
code{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
pre{background:var(--tint);border:1px solid var(--line);border-radius:8px;padding:12px 14px;overflow-x:auto;margin:10px 0}
.badge,.verdict,.status{display:inline-block;border-radius:999px;padding:1px 10px;font-size:12.5px;white-space:nowrap}
.badge{color:var(--muted);background:var(--tint);border:1px solid var(--line)}
.badge.measured{color:var(--blue);background:var(--blue-bg);border-color:transparent}
.badge.asserted{color:var(--amber);background:var(--amber-bg);border-color:transparent}
.badge.missing{color:var(--red);background:#fff;border:1px dashed var(--red)}
.verdict{font-weight:600}.verdict.passed{color:var(--green);background:var(--green-bg)}
.verdict.failed{color:var(--red);background:var(--red-bg)}.verdict.not_evaluated{color:var(--amber);background:var(--amber-bg)}
.status.present{color:var(--green);background:var(--green-bg)}.status.absent{color:var(--red);background:var(--red-bg)}
.status.not{color:var(--muted);background:var(--tint);border:1px solid var(--line)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:22px;margin:16px 0}
figure{margin:0;max-width:620px;break-inside:avoid}figure svg{width:100%;height:auto;display:block}
figcaption{color:var(--muted);font-size:13.5px;margin-top:4px}
footer{color:var(--muted);font-size:13px;padding-top:6px;padding-bottom:44px}
footer ul{list-style:none;padding:0;margin:6px 0;display:grid;gap:6px}
@media(max-width:720px){nav ol{columns:1}header,nav,main,footer{padding-left:14px;padding-right:14px}section{padding:18px 14px}
h1{font-size:26px}.plots{grid-template-columns:1fr}.scroll table{min-width:560px}.scroll table.figures{min-width:0}
.figures thead{display:none}.figures tbody,.figures th,.figures td{display:block;width:auto;border:0;padding:1px 0}
.figures tr{display:grid;grid-template-columns:1fr auto;gap:2px 10px;padding:8px 0;border-bottom:1px solid var(--line)}
.figures th,.figures td:nth-child(2){grid-column:1/-1}.figures th{color:var(--muted);font-size:13px}}
@page{size:A4;margin:16mm 14mm}
@media print{body{background:#fff;font-size:10.5pt}header,nav,main,footer{max-width:none;padding-left:0;padding-right:0}
header{padding-top:0}section{border:0;padding:8pt 0;margin:0}h2,h3{break-after:avoid}tr,.tile{break-inside:avoid}
table{font-size:8.5pt}nav ol{columns:2}.plots{display:block}figure{margin:0 0 12pt;max-width:150mm}
.scroll{overflow:visible}thead{display:table-header-group}pre{white-space:pre-wrap;overflow-wrap:anywhere}
.figures td:last-child,.verdicts td:last-child,.verdicts td:nth-child(2){white-space:normal}.verdicts code{font-size:7.5pt}}
"""
