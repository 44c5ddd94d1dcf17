// The WebGL2 layer over the images: keypoints, ellipses, matches, residuals, one buffer each.

import {
  ARROWS_VERTEX, ELLIPSES_VERTEX, ENDS_VERTEX, FLAT_FRAGMENT, LINES_VERTEX, POINTS_FRAGMENT,
  POINTS_VERTEX,
} from "./shaders";
import type { Table } from "./api";

/** Where a pane is on the stage, and which part of its image it shows. */
export interface Frame {
  left: number; // CSS px on the stage
  top: number;
  width: number;
  height: number;
  centreX: number; // image px, counted from the outer edge of the first pixel
  centreY: number;
  scale: number; // CSS px per image px
}

export interface PointFilter {
  topK: number;
  minScore: number;
  onlyScale: number; // 0: all
}

const POINT_COLUMNS = 7;
const MATCH_COLUMNS = 9;
const FLOAT = 4;

class Program {
  private readonly places = new Map<string, WebGLUniformLocation | null>();
  readonly program: WebGLProgram;

  constructor(
    private readonly gl: WebGL2RenderingContext,
    vertex: string,
    fragment: string,
  ) {
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]] as const) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost())
        throw new Error(gl.getShaderInfoLog(shader) ?? "shader");
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost())
      throw new Error(gl.getProgramInfoLog(this.program) ?? "program");
  }

  use(): this {
    this.gl.useProgram(this.program);
    return this;
  }

  float(name: string, ...values: number[]): this {
    const place = this.place(name), gl = this.gl;
    if (values.length === 1) gl.uniform1f(place, values[0]!);
    else if (values.length === 2) gl.uniform2f(place, values[0]!, values[1]!);
    else gl.uniform4f(place, values[0]!, values[1]!, values[2]!, values[3]!);
    return this;
  }

  int(name: string, value: number): this {
    this.gl.uniform1i(this.place(name), value);
    return this;
  }

  view(name: string, frame: Frame): this {
    this.float(`${name}.centre`, frame.centreX, frame.centreY);
    this.float(`${name}.origin`, frame.left + frame.width / 2, frame.top + frame.height / 2);
    return this.float(`${name}.scale`, frame.scale);
  }

  private place(name: string): WebGLUniformLocation | null {
    if (!this.places.has(name))
      this.places.set(name, this.gl.getUniformLocation(this.program, name));
    return this.places.get(name)!;
  }
}

/** Keypoints of one image on the graphics processor. */
export class PointSet {
  readonly count: number;
  readonly range: [number, number];
  /** Median standard deviation, px; 0 if unknown. */
  readonly sd: number;
  vertices: WebGLVertexArrayObject | null = null;
  instances: WebGLVertexArrayObject | null = null;
  buffer: WebGLBuffer | null = null;

  constructor(readonly table: Table) {
    this.count = table.rows;
    const values = table.values;
    this.range = this.count ? [values[(this.count - 1) * POINT_COLUMNS + 2]!, values[2]!] : [0, 1];
    const step = Math.max(1, Math.floor(this.count / 1000));
    const sds: number[] = [];
    for (let i = 0; i < this.count; i += step) {
      const [xx, yy] = [values[i * POINT_COLUMNS + 4]!, values[i * POINT_COLUMNS + 6]!];
      if (xx + yy > 0) sds.push(Math.sqrt((xx + yy) / 2));
    }
    this.sd = sds.sort((a, b) => a - b)[Math.floor(sds.length / 2)] ?? 0;
  }

  /** Rows in reverse, so that the best is drawn last. */
  reversed(): Float32Array {
    const out = new Float32Array(this.table.values.length);
    for (let i = 0, j = this.count - 1; i < this.count; i++, j--)
      out.set(this.table.values.subarray(j * POINT_COLUMNS, (j + 1) * POINT_COLUMNS), i * POINT_COLUMNS);
    return out;
  }
}

/** Matches of one pair on the graphics processor. */
export class MatchSet {
  readonly count: number;
  readonly removed: Float32Array;
  vertices: WebGLVertexArrayObject | null = null;
  instances: WebGLVertexArrayObject | null = null;
  buffer: WebGLBuffer | null = null;
  flags: WebGLBuffer | null = null;

  constructor(readonly table: Table) {
    this.count = table.rows;
    this.removed = new Float32Array(this.count);
  }
}

/** The canvas of the stage. `onDraw` draws all panes; `request` asks for it once a frame. */
export class Layer {
  readonly gl: WebGL2RenderingContext;
  onDraw: (() => void) | null = null;
  frames = 0;
  private points!: Program;
  private ellipses!: Program;
  private lines!: Program;
  private ends!: Program;
  private arrows!: Program;
  private waiting = 0;
  private kept = new Set<PointSet | MatchSet>();

  constructor(readonly canvas: HTMLCanvasElement) {
    const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: true });
    if (gl === null) throw new Error("WebGL 2");
    this.gl = gl;
    this.compile();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.compile();
      for (const set of this.kept) set.vertices = null;
      this.request();
    });
  }

  /** Draw in the next frame. */
  request(): void {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  /** Draw now, in step with the images. */
  draw(): void {
    if (this.waiting) cancelAnimationFrame(this.waiting);
    this.waiting = 0;
    const { gl, canvas } = this, ratio = window.devicePixelRatio;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    gl.viewport(0, 0, width, height);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.onDraw?.();
    this.frames++;
  }

  drawPoints(
    set: PointSet, frame: Frame, filter: PointFilter, radius: number,
    colour: [number, number, number, number] = [0, 0, 0, 0], selected = -1,
  ): void {
    if (set.count === 0) return;
    this.upload(set);
    this.clipTo(frame);
    const program = this.begin(this.points).view("u_view", frame).float("u_radius", radius);
    this.filter(program, set, filter).float("u_colour", ...colour)
      .int("u_selected", selected < 0 ? -1 : set.count - 1 - selected);
    this.gl.bindVertexArray(set.vertices);
    // The best are stored last, so that fewer than all are the end of the buffer.
    const first = Math.max(0, set.count - Math.min(filter.topK, set.count));
    this.gl.drawArrays(this.gl.POINTS, first, set.count - first);
  }

  drawEllipses(set: PointSet, frame: Frame, filter: PointFilter, factor: number): void {
    if (set.count === 0 || set.sd === 0) return;
    this.upload(set);
    this.clipTo(frame);
    const program = this.begin(this.ellipses).view("u_view", frame).float("u_factor", factor);
    this.filter(program, set, filter);
    this.gl.bindVertexArray(set.instances);
    this.gl.drawArraysInstanced(this.gl.TRIANGLE_STRIP, 0, 66, set.count);
  }

  /** Lines from A to B, or within one pane if both are the same. */
  drawLines(set: MatchSet, a: Frame, b: Frame, show: number, selected: number, opacity: number): void {
    if (set.count === 0) return;
    this.uploadMatches(set);
    if (a === b) this.clipTo(a);
    else this.gl.disable(this.gl.SCISSOR_TEST);
    this.begin(this.lines).view("u_view", a).view("u_other", b).float("u_width", 1.2)
      .float("u_opacity", opacity).int("u_show", show).int("u_selected", selected);
    this.gl.bindVertexArray(set.instances);
    this.gl.drawArraysInstanced(this.gl.TRIANGLE_STRIP, 0, 4, set.count);
  }

  drawEnds(set: MatchSet, frame: Frame, end: 0 | 1, show: number, selected: number, radius: number): void {
    if (set.count === 0) return;
    this.uploadMatches(set);
    this.clipTo(frame);
    this.begin(this.ends).view("u_view", frame).float("u_radius", radius).int("u_end", end)
      .int("u_show", show).int("u_selected", selected);
    this.gl.bindVertexArray(set.vertices);
    this.gl.drawArrays(this.gl.POINTS, 0, set.count);
  }

  drawArrows(set: MatchSet, frame: Frame, show: number, selected: number, factor: number): void {
    if (set.count === 0) return;
    this.uploadMatches(set);
    this.clipTo(frame);
    this.begin(this.arrows).view("u_view", frame).float("u_factor", factor)
      .int("u_show", show).int("u_selected", selected);
    this.gl.bindVertexArray(set.instances);
    this.gl.drawArraysInstanced(this.gl.TRIANGLES, 0, 18, set.count);
  }

  /** Upload changed `removed` flags. */
  flagsChanged(set: MatchSet): void {
    if (set.vertices === null) return;
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, set.flags);
    this.gl.bufferSubData(this.gl.ARRAY_BUFFER, 0, set.removed);
  }

  /** Free the memory of a set. */
  drop(set: PointSet | MatchSet | null): void {
    if (set === null) return;
    this.kept.delete(set);
    for (const vertices of [set.vertices, set.instances]) this.gl.deleteVertexArray(vertices);
    this.gl.deleteBuffer(set.buffer);
    if (set instanceof MatchSet) this.gl.deleteBuffer(set.flags);
    set.vertices = null;
  }

  private compile(): void {
    this.points = new Program(this.gl, POINTS_VERTEX, POINTS_FRAGMENT);
    this.ellipses = new Program(this.gl, ELLIPSES_VERTEX, FLAT_FRAGMENT);
    this.lines = new Program(this.gl, LINES_VERTEX, FLAT_FRAGMENT);
    this.ends = new Program(this.gl, ENDS_VERTEX, POINTS_FRAGMENT);
    this.arrows = new Program(this.gl, ARROWS_VERTEX, FLAT_FRAGMENT);
  }

  private begin(program: Program): Program {
    return program.use().float("u_canvas", this.canvas.width, this.canvas.height)
      .float("u_ratio", window.devicePixelRatio);
  }

  private filter(program: Program, set: PointSet, filter: PointFilter): Program {
    return program.float("u_count", set.count).float("u_top_k", filter.topK)
      .float("u_min_score", filter.minScore).float("u_only_scale", filter.onlyScale)
      .float("u_range", ...set.range);
  }

  private clipTo(frame: Frame): void {
    const { gl } = this, ratio = window.devicePixelRatio;
    gl.enable(gl.SCISSOR_TEST);
    const bottom = this.canvas.height - (frame.top + frame.height) * ratio;
    gl.scissor(
      Math.round(frame.left * ratio), Math.round(bottom),
      Math.max(0, Math.round(frame.width * ratio)), Math.max(0, Math.round(frame.height * ratio)),
    );
  }

  private upload(set: PointSet): void {
    if (set.vertices !== null) return;
    const { gl } = this;
    this.kept.add(set);
    set.buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, set.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, set.reversed(), gl.STATIC_DRAW);
    const columns: [number, number, number][] = [[0, 2, 0], [1, 1, 2], [2, 1, 3], [3, 3, 4]];
    set.vertices = this.attributes(set.buffer, POINT_COLUMNS, columns.slice(0, 3), 0);
    set.instances = this.attributes(set.buffer, POINT_COLUMNS, columns, 1);
  }

  private uploadMatches(set: MatchSet): void {
    if (set.vertices !== null) return;
    const { gl } = this;
    this.kept.add(set);
    set.buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, set.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, set.table.values, gl.STATIC_DRAW);
    set.flags = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, set.flags);
    gl.bufferData(gl.ARRAY_BUFFER, set.removed, gl.DYNAMIC_DRAW);
    const columns: [number, number, number][] = [[0, 4, 0], [1, 2, 4], [2, 2, 6], [3, 1, 8]];
    for (const divisor of [0, 1]) {
      const made = this.attributes(set.buffer, MATCH_COLUMNS, columns, divisor);
      gl.bindVertexArray(made);
      gl.bindBuffer(gl.ARRAY_BUFFER, set.flags);
      gl.enableVertexAttribArray(4);
      gl.vertexAttribPointer(4, 1, gl.FLOAT, false, FLOAT, 0);
      gl.vertexAttribDivisor(4, divisor);
      if (divisor) set.instances = made;
      else set.vertices = made;
    }
    gl.bindVertexArray(null);
  }

  private attributes(
    buffer: WebGLBuffer, stride: number, columns: [number, number, number][], divisor: number,
  ): WebGLVertexArrayObject {
    const { gl } = this, made = gl.createVertexArray();
    gl.bindVertexArray(made);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    for (const [location, size, at] of columns) {
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, size, gl.FLOAT, false, stride * FLOAT, at * FLOAT);
      gl.vertexAttribDivisor(location, divisor);
    }
    gl.bindVertexArray(null);
    return made;
  }
}
