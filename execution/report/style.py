"""The look of the page, and the few lines of script that sort its tables. Nothing is loaded from anywhere."""

CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6675;--faint:#8a94a3;--line:#e3e7ed;
--grid:#edf0f4;--blue:#2563c9;--blue2:#2563c922;--cost:#d4572a;--gain:#12876f;--total:#46536a;--violet:#7a4fc4;
--amber:#b17503;--badge:#fdf3dc;--badge-ink:#7a5200}
@media (prefers-color-scheme:dark){:root{--bg:#0f141b;--card:#171e28;--ink:#e4e9f0;--soft:#9daabb;--faint:#728094;
--line:#2a3442;--grid:#222b37;--blue:#6ea4ff;--blue2:#6ea4ff2b;--cost:#f08a5d;--gain:#3fc3a4;--total:#93a3bb;
--violet:#b394f4;--amber:#e0ab45;--badge:#3a2f14;--badge-ink:#f0cd84}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1290px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:23px;line-height:1.25;margin:0 0 2px;letter-spacing:-.01em}
h2{font-size:16px;margin:34px 0 10px}
h3{font-size:13.5px;margin:0 0 2px;font-weight:650}
p{margin:0 0 8px}.soft{color:var(--soft)}.small{font-size:12.5px}
.convention{border-left:3px solid var(--cost);background:var(--card);padding:9px 14px;margin:16px 0 18px;
border-radius:0 6px 6px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:9px;padding:15px 17px;min-width:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(178px,1fr));gap:12px}
.tile .name{color:var(--soft);font-size:12.5px}.tile .figure{font-size:20px;font-weight:650;line-height:1.35}
.tile small{font-size:13px;font-weight:500;color:var(--soft)}.tile .under{color:var(--soft);font-size:12px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:14px}
.wide{grid-column:1/-1}.stack{display:grid;gap:14px}
.beside{display:grid;grid-template-columns:minmax(0,10fr) minmax(0,17fr);gap:18px;align-items:start}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:12.5px}
th,td{padding:4px 7px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
td.t,th.t{text-align:left}th:first-child,td:first-child{padding-left:2px}
tbody tr:last-child td{border-bottom:0}tr.few td{color:var(--faint)}
td.t{max-width:230px;overflow:hidden;text-overflow:ellipsis}
table.sort th{cursor:pointer;user-select:none}table.sort th:hover{color:var(--ink)}
th[aria-sort=ascending]::after{content:" ▴"}th[aria-sort=descending]::after{content:" ▾"}
.up{color:var(--cost)}.down{color:var(--gain)}
details.order{background:var(--card);border:1px solid var(--line);border-radius:9px;margin-bottom:10px}
summary{cursor:pointer;padding:11px 16px;display:flex;flex-wrap:wrap;gap:4px 14px;align-items:baseline}
summary::marker{content:""}summary::-webkit-details-marker{display:none}
summary::before{content:"▸";color:var(--faint)}details[open]>summary::before{content:"▾"}
summary b{font-weight:650}summary .cost{margin-left:auto;font-weight:650}
.inside{padding:2px 16px 14px}
.three{display:grid;grid-template-columns:560fr 350fr 310fr;gap:18px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:2px 22px;margin-top:10px;
font-size:12.5px}
.facts div{display:flex;justify-content:space-between;gap:10px;border-bottom:1px solid var(--line);padding:2px 0}
.facts div>span:first-child{color:var(--soft)}.facts .up{color:var(--cost)}.facts .down{color:var(--gain)}
.badge{display:inline-block;background:var(--badge);color:var(--badge-ink);border-radius:4px;padding:0 7px;
font-size:11.5px;margin:8px 5px 0 0}
.key{font-size:12px;color:var(--soft);margin:0 0 4px}.key i{display:inline-block;width:13px;height:0;margin:0 5px 3px 10px;
border-top:2px solid var(--soft);vertical-align:middle}.key i:first-child{margin-left:0}
.key i.k-filled,.key i.k-paid{border-color:var(--blue)}.key i.k-planned{border-top-style:dashed}
.key i.k-mid{border-color:var(--faint)}
.key i.k-taker,.key i.k-maker,.key i.k-many,.key i.k-few{width:9px;height:9px;border-radius:50%;border:2px solid var(--blue);
background:var(--blue)}.key i.k-maker,.key i.k-few{background:none}.key i.k-few{border-color:var(--faint)}
.key i.k-cost,.key i.k-gain,.key i.k-total{width:10px;height:10px;border:0;border-radius:2px;background:var(--cost)}
.key i.k-gain{background:var(--gain)}.key i.k-total{background:var(--total)}
.key i.k-median{width:2px;height:11px;border:0;background:var(--ink)}
.none{color:var(--faint);font-size:12.5px;padding:30px 0;text-align:center}
svg{display:block;width:100%;height:auto;font-size:11px}
svg text{fill:var(--soft)}svg .value{fill:var(--ink);font-size:11px}svg .row{fill:var(--ink);font-size:12px}
svg .grid{stroke:var(--grid)}svg .axis{stroke:var(--faint)}svg .zero{stroke:var(--faint);stroke-width:1.2}
svg .mid{stroke:var(--faint);stroke-width:1.3}svg .after{fill:var(--grid);opacity:.75}
svg line.rule-d,svg line.rule-a,svg line.rule-v,svg line.rule-p{stroke-width:1.2;stroke-dasharray:5 4}
svg line.rule-d{stroke:var(--violet)}svg line.rule-a{stroke:var(--amber)}svg line.rule-v{stroke:var(--gain)}
svg line.rule-p{stroke:var(--blue);stroke-dasharray:none}
svg .tag{font-size:10.5px}svg text.rule-d{fill:var(--violet)}svg text.rule-a{fill:var(--amber)}
svg text.rule-v{fill:var(--gain)}svg text.rule-p{fill:var(--blue)}
svg .taker{fill:var(--blue);fill-opacity:.75;stroke:var(--card);stroke-width:.8}
svg .maker{fill:var(--card);stroke:var(--blue);stroke-width:1.5}
svg .planned{stroke:var(--soft);stroke-width:1.4;stroke-dasharray:5 4}svg .filled{stroke:var(--blue);stroke-width:2}
svg .cost{fill:var(--cost)}svg .gain{fill:var(--gain)}svg .total{fill:var(--total)}
svg .joint{stroke:var(--faint);stroke-dasharray:2 2}
svg .whisker{stroke:var(--blue);stroke-width:2}svg .whisker.few{stroke:var(--faint);stroke-dasharray:3 3}
svg .dot{fill:var(--blue);stroke:var(--card);stroke-width:1}svg .dot.few{fill:var(--card);stroke:var(--faint);
stroke-width:1.8}svg .median{fill:var(--ink)}svg .median.few{fill:var(--faint)}
svg .speck{fill:var(--blue);fill-opacity:.45}svg .quartiles{fill:var(--blue2);stroke:var(--blue);stroke-width:1}
svg .band{fill:var(--blue2)}svg .curve{stroke:var(--blue);stroke-width:2}
svg .fitted{stroke:var(--cost);stroke-width:1.6;stroke-dasharray:6 4}
@media (max-width:900px){.beside,.three{grid-template-columns:1fr}main{padding:18px 12px 40px}}
@media print{body{background:#fff}details.order,.card{break-inside:avoid}}
"""

SCRIPT = """
document.querySelectorAll("table.sort").forEach(table=>table.querySelectorAll("th").forEach((head,column)=>
head.addEventListener("click",()=>{const down=head.getAttribute("aria-sort")!=="descending";
table.querySelectorAll("th").forEach(other=>other.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",down?"descending":"ascending");const body=table.tBodies[0];
const value=row=>row.cells[column].dataset.v??row.cells[column].textContent;
const text=head.classList.contains("t");
[...body.rows].sort((a,b)=>{const x=value(a),y=value(b);if(x===""||y==="")return (x==="")-(y==="");
return (down?-1:1)*(text?x.localeCompare(y):x-y)}).forEach(row=>body.append(row))})));
"""
