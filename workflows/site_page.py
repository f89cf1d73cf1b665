"""The page on which a person clicks where a site is: both overviews, and the line to give back."""

from __future__ import annotations

import base64
import json

import numpy as np
from numpy.typing import NDArray

from workflows.layout import Layout
from workflows.png import encode, stretched
from workflows.siting import Pictures

_PAGE = """<!doctype html>
<meta charset="utf-8"><title>@TITLE@</title>
<style>
 body{font:15px system-ui,sans-serif;margin:1.2em;max-width:100em;color:#222}
 figure{display:inline-block;margin:0 1em 1em 0;vertical-align:top} svg{width:min(46vw,900px);cursor:crosshair}
 figcaption{font-weight:600;margin-bottom:.3em} #line{font:14px monospace;width:100%;padding:.5em;box-sizing:border-box}
 #now{font-size:1.15em;padding:.5em;background:#fff3c4;border-radius:4px} button{font-size:1em;margin:.5em .5em .5em 0}
</style>
<h1>@TITLE@</h1>
<p id="now"></p>
<button id="undo">take the last click back</button>
<input id="line" readonly placeholder="the line to paste into the terminal comes here">
<figure><figcaption>ion beam, straight down on the top surface</figcaption>
 <svg id="ion" viewBox="0 0 @W@ @H@"><image href="@ION@" width="@W@" height="@H@"/><g></g></svg></figure>
<figure><figcaption>electron beam</figcaption>
 <svg id="electron" viewBox="0 0 @W@ @H@"><image href="@ELECTRON@" width="@W@" height="@H@"/><g></g></svg></figure>
<p>Dashed: what the recipe will cut and cover about the middle you click. Scale bar: @BAR_UM@ um.</p>
<script>
const boxes=@BOXES@, pixel=@PIXEL@, bar=@BAR@, marks=@MARKS@;
const steps=[["ion","edge","one end of the sample's front edge, far left"],["ion","edge","the same edge, far right"],
 ["ion","middle","the middle of the work, on that edge"],
 ["electron","electron","the same point, in the other picture"]];
for(let i=0;i<marks;i++)steps.push(["ion","marks",i?"its spare":"the middle of the block's fiducial"]);
const clicks=[];
function lineOf(clicks){let out="",name="";clicks.forEach((c,i)=>{if(steps[i][1]!==name){name=steps[i][1];out+=" "+name}
 out+=" "+c[0].toFixed(1)+","+c[1].toFixed(1)});return out.trim()}
function draw(){for(const id of ["ion","electron"])document.querySelector("#"+id+" g").innerHTML=
  `<path d="M20 ${@H@-20}h${bar}" stroke="white" stroke-width="8"/>`;
 const put=(id,text)=>document.querySelector("#"+id+" g").insertAdjacentHTML("beforeend",text);
 clicks.forEach((c,i)=>put(steps[i][0],`<circle cx="${c[0]}" cy="${c[1]}" r="9" fill="none" stroke="#e6005c"
  stroke-width="3"/><text x="${c[0]+14}" y="${c[1]-10}" font-size="26" fill="#e6005c">${steps[i][1]}</text>`));
 if(clicks.length>1)put("ion",`<path d="M${clicks[0]} L${clicks[1]}" stroke="#e6005c" stroke-width="2"/>`);
 if(clicks.length>2){const [a,b,m]=clicks, turn=Math.atan2(b[1]-a[1],b[0]-a[0])*180/Math.PI;
  for(const [name,x0,z0,x1,z1] of boxes)put("ion",`<g transform="translate(${m}) rotate(${turn})"><rect x="${x0/pixel}"
   y="${-z1/pixel}" width="${(x1-x0)/pixel}" height="${(z1-z0)/pixel}" fill="none" stroke="#00d0ff" stroke-width="3"
   stroke-dasharray="12 8"/><text x="${x0/pixel+4}" y="${-z1/pixel+26}" font-size="24" fill="#00d0ff">${name}</text>
   </g>`)}
 const next=steps[clicks.length];
 document.getElementById("now").textContent=next?`Click ${next[2]} (${next[0]} beam's picture).`
  :"All there. Copy the line below into the terminal.";
 document.getElementById("line").value=next?"":lineOf(clicks)}
for(const id of ["ion","electron"])document.getElementById(id).addEventListener("click",e=>{
 if(clicks.length>=steps.length||steps[clicks.length][0]!==id)return;
 const s=e.currentTarget,p=new DOMPoint(e.clientX,e.clientY).matrixTransform(s.getScreenCTM().inverse());
 clicks.push([p.x,p.y]);draw()});
document.getElementById("undo").onclick=()=>{clicks.pop();draw()};
draw();
</script>
"""
_BAR_SHARE = 5.0


def page(title: str, pictures: Pictures, layout: Layout, marks: int) -> str:
    """Return the page (HTML, all in one file) for two overviews; `marks`: how many fiducials are to be clicked."""
    height, width = pictures.ion.pixels.shape[1:]
    pixel = pictures.ion.meta.pixel_x_m
    bar_um = 10.0 ** np.floor(np.log10(width * pixel * 1e6 / _BAR_SHARE))
    boxes: list[list[object]] = [["face", -layout.face[0] / 2, 0.0, layout.face[0] / 2, max(layout.trim, pixel)]]
    if layout.cap_height > 0:
        boxes.append(["cap", *layout.cap])
    for number, mark in enumerate(layout.marks, start=1):
        x, _, z = mark.centre
        boxes.append([f"mark {number}", x - mark.size / 2, z - mark.size / 2, x + mark.size / 2, z + mark.size / 2])
    values = {
        "TITLE": title, "W": width, "H": height, "ION": _picture(pictures.ion.pixels[0]),
        "ELECTRON": _picture(pictures.electron.pixels[0]), "BOXES": json.dumps(boxes), "PIXEL": pixel,
        "BAR": bar_um * 1e-6 / pixel, "BAR_UM": f"{bar_um:g}", "MARKS": marks,
    }  # fmt: skip
    text = _PAGE
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def _picture(image: NDArray[np.generic]) -> str:
    """Return a picture, stretched to be seen, as a data URI."""
    return "data:image/png;base64," + base64.b64encode(encode(stretched(image))).decode("ascii")
