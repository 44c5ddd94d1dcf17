// GLSL of the layer. Positions arrive in px of the image, where integers are pixel CENTRES; `place`
// adds the half pixel that leads to OpenSeadragon's coordinates, which count pixel edges.

const PLACE = `
uniform vec2 u_canvas;   // px of the canvas
uniform float u_ratio;   // px of the canvas per CSS px
struct View { vec2 centre; vec2 origin; float scale; };
vec2 place(vec2 xy, View view) {
  return ((xy - view.centre + 0.5) * view.scale + view.origin) * u_ratio;
}
vec4 clip(vec2 px) {
  vec2 unit = px / u_canvas * 2.0 - 1.0;
  return vec4(unit.x, -unit.y, 0.0, 1.0);
}
const vec4 NOWHERE = vec4(2.0, 2.0, 2.0, 1.0);
`;

const FILTER = `
uniform float u_count, u_top_k, u_min_score, u_only_scale;
bool hidden(int stored, float score, float scale) {
  float rank = u_count - 1.0 - float(stored);  // the best is stored last, and drawn on top
  if (rank >= u_top_k || score < u_min_score) return true;
  return u_only_scale > 0.0 && abs(scale - u_only_scale) > 1e-4 * u_only_scale;
}
`;

// Viridis at five places; readable with every colour vision.
const RAMP = `
uniform vec2 u_range;
vec3 ramp(float score) {
  float t = sqrt(clamp((score - u_range.x) / max(u_range.y - u_range.x, 1e-9), 0.0, 1.0)) * 4.0;
  vec3 a = vec3(0.267, 0.005, 0.329), b = vec3(0.229, 0.322, 0.546), c = vec3(0.128, 0.567, 0.551);
  vec3 d = vec3(0.369, 0.789, 0.383), e = vec3(0.993, 0.906, 0.144);
  if (t < 1.0) return mix(a, b, t);
  if (t < 2.0) return mix(b, c, t - 1.0);
  if (t < 3.0) return mix(c, d, t - 2.0);
  return mix(d, e, t - 3.0);
}
`;

const HEAD = "#version 300 es\nprecision highp float;\nprecision highp int;\n";

export const POINTS_VERTEX = `${HEAD}${PLACE}${FILTER}${RAMP}
layout(location = 0) in vec2 a_xy;
layout(location = 1) in float a_score;
layout(location = 2) in float a_scale;
uniform View u_view;
uniform float u_radius;
uniform vec4 u_colour;  // a = 0: by score
uniform int u_selected;
out vec4 v_colour;
out float v_radius;
void main() {
  v_colour = u_colour.a > 0.0 ? u_colour : vec4(ramp(a_score), 1.0);
  bool selected = gl_VertexID == u_selected;
  if (selected) v_colour = vec4(1.0);
  v_radius = (selected ? u_radius + 5.0 : u_radius) * u_ratio;
  gl_PointSize = 2.0 * v_radius + (v_radius < 1.75 * u_ratio ? 0.0 : 3.0);
  gl_Position = hidden(gl_VertexID, a_score, a_scale) ? NOWHERE : clip(place(a_xy, u_view));
}`;

/** A filled dot with a dark rim; large ones are open rings, so that the image shows through. The
 * smallest are squares without a rim, because a million of them shall stay fast. */
export const POINTS_FRAGMENT = `${HEAD}
in vec4 v_colour;
in float v_radius;
uniform float u_ratio;
out vec4 colour;
void main() {
  if (v_radius < 1.75 * u_ratio) {
    colour = vec4(v_colour.rgb * v_colour.a, v_colour.a);
    return;
  }
  float from = length(gl_PointCoord - 0.5) * (2.0 * v_radius + 3.0);
  float line = max(1.5, 0.3 * v_radius);
  float outer = 1.0 - smoothstep(v_radius - 0.5, v_radius + 0.5, from);
  float hole = v_radius > 5.0 ? 1.0 - smoothstep(v_radius - line - 1.0, v_radius - line, from) : 0.0;
  float body = outer * (1.0 - hole);
  float rim = (1.0 - smoothstep(v_radius + 0.5, v_radius + 1.5, from)) * (1.0 - hole);
  vec3 mixed = mix(vec3(0.05), v_colour.rgb, body);
  float alpha = max(body, 0.75 * rim) * v_colour.a;
  if (alpha < 0.01) discard;
  colour = vec4(mixed * alpha, alpha);
}`;

/** Instanced: the ring of each covariance, a strip of 2 vertices for each angle. */
export const ELLIPSES_VERTEX = `${HEAD}${PLACE}${FILTER}${RAMP}
layout(location = 0) in vec2 a_xy;
layout(location = 1) in float a_score;
layout(location = 2) in float a_scale;
layout(location = 3) in vec3 a_covariance;
uniform View u_view;
uniform float u_factor;
out vec4 v_colour;
void main() {
  v_colour = vec4(ramp(a_score), 1.0);
  if (hidden(gl_InstanceID, a_score, a_scale) || !(a_covariance.x > 0.0)) {
    gl_Position = NOWHERE;
    return;
  }
  float angle = float(gl_VertexID / 2) * 6.283185307 / 32.0;
  vec2 unit = vec2(cos(angle), sin(angle));
  float l11 = sqrt(a_covariance.x), l21 = a_covariance.y / l11;
  float l22 = sqrt(max(a_covariance.z - l21 * l21, 0.0));
  vec2 offset = u_factor * vec2(l11 * unit.x, l21 * unit.x + l22 * unit.y) * u_view.scale * u_ratio;
  float side = (gl_VertexID % 2 == 0 ? -0.75 : 0.75) * u_ratio;
  offset += normalize(offset + 1e-6 * unit) * side;
  gl_Position = clip(place(a_xy, u_view) + offset);
}`;

export const FLAT_FRAGMENT = `${HEAD}
in vec4 v_colour;
out vec4 colour;
void main() { colour = vec4(v_colour.rgb * v_colour.a, v_colour.a); }`;

const MATCH = `
layout(location = 0) in vec4 a_ends;      // x and y in A, x and y in B
layout(location = 1) in vec2 a_kind;      // score, state
layout(location = 2) in vec2 a_residual;  // px of B
layout(location = 3) in float a_origin;   // below 0: added by hand
layout(location = 4) in float a_removed;
uniform int u_show;      // 0 all, 1 inliers, 2 rejected, 3 none
uniform int u_selected;
vec4 colour_of(int index) {
  if (index == u_selected) return vec4(1.0, 1.0, 1.0, 1.0);
  if (a_removed > 0.5) return vec4(0.62, 0.62, 0.62, 0.8);
  if (a_kind.y > 0.5) return vec4(0.91, 0.45, 0.09, 0.9);
  if (a_origin < 0.0) return vec4(0.84, 0.42, 0.94, 1.0);
  return vec4(0.10, 0.72, 0.86, 0.85);
}
bool unseen(int index) {
  if (index == u_selected) return false;
  if (u_show == 3) return true;
  bool rejected = a_kind.y > 0.5;
  return (u_show == 1 && rejected) || (u_show == 2 && !rejected);
}
`;

/** Instanced: a line from A's view to B's, two triangles. */
export const LINES_VERTEX = `${HEAD}${PLACE}${MATCH}
uniform View u_view;
uniform View u_other;
uniform float u_width;
uniform float u_opacity;
out vec4 v_colour;
void main() {
  v_colour = colour_of(gl_InstanceID);
  bool selected = gl_InstanceID == u_selected;
  if (!selected) v_colour.a *= u_opacity;
  if (unseen(gl_InstanceID)) { gl_Position = NOWHERE; return; }
  vec2 from = place(a_ends.xy, u_view), to = place(a_ends.zw, u_other);
  vec2 along = to - from;
  vec2 across = vec2(-along.y, along.x) / max(length(along), 1e-6);
  float half_width = (selected ? 1.25 : 0.5) * u_width * u_ratio;
  vec2 end = gl_VertexID < 2 ? from : to;
  gl_Position = clip(end + across * (gl_VertexID % 2 == 0 ? -half_width : half_width));
}`;

/** A ring at the end of each match, in A (u_end 0) or B (u_end 1). */
export const ENDS_VERTEX = `${HEAD}${PLACE}${MATCH}
uniform View u_view;
uniform float u_radius;
uniform int u_end;
out vec4 v_colour;
out float v_radius;
void main() {
  v_colour = colour_of(gl_VertexID);
  v_radius = (gl_VertexID == u_selected ? 1.8 : 1.0) * u_radius * u_ratio;
  gl_PointSize = 2.0 * v_radius + 3.0;
  vec2 xy = u_end == 0 ? a_ends.xy : a_ends.zw;
  gl_Position = unseen(gl_VertexID) ? NOWHERE : clip(place(xy, u_view));
}`;

/** Instanced: from where the model expects a match in B towards where it is, 3 strokes of 6. */
export const ARROWS_VERTEX = `${HEAD}${PLACE}${MATCH}
uniform View u_view;
uniform float u_factor;
out vec4 v_colour;
void main() {
  v_colour = colour_of(gl_InstanceID);
  if (unseen(gl_InstanceID) || isnan(a_residual.x) || isnan(a_residual.y)) {
    gl_Position = NOWHERE;
    return;
  }
  vec2 from = place(a_ends.zw - a_residual, u_view);
  vec2 along = a_residual * u_factor * u_view.scale * u_ratio;
  float size = length(along);
  vec2 unit = along / max(size, 1e-6), across = vec2(-unit.y, unit.x);
  vec2 tip = from + along;
  float head = min(6.0 * u_ratio, 0.4 * size);
  int stroke = gl_VertexID / 6, corner = gl_VertexID % 6;
  vec2 start = stroke == 0 ? from : tip;
  vec2 end = stroke == 0 ? tip : tip - unit * head + across * (stroke == 1 ? head : -head) * 0.6;
  vec2 way = end - start;
  vec2 normal = vec2(-way.y, way.x) / max(length(way), 1e-6) * 0.75 * u_ratio;
  bool at_end = corner == 1 || corner == 2 || corner == 4;
  bool low = corner == 0 || corner == 1 || corner == 3;
  gl_Position = clip((at_end ? end : start) + normal * (low ? -1.0 : 1.0));
}`;
