//! The programs: one for each pair of a source's and a target's packing, written when they are needed.
//!
//! A fragment of the target finds its place in the source (`map`), fetches texels there by whole numbers, unpacks them
//! to three code values and alpha, and makes those of the target by one matrix. Nothing is left to a driver's sampler.
//! Steps that change nothing for a pair, or for where its pictures go, are not in its program.

use std::fmt::Write as _;

use super::plan::is_yuv;
use crate::image::shape::Shape;

/// Two triangles that cover everything, of [`VERTICES`]. One that is larger covers it too, but not every renderer takes
/// what lies so far outside: Mesa's for the CPU cuts it into two, with a seam of blocks that are covered in part, where it
/// knows these for a rectangle. On a GPU a seam costs one pixel of some hundreds.
pub(super) const VERTEX: &str = "#version 300 es
void main() {
    ivec2 corner = (ivec2(0x16, 0x34) >> gl_VertexID) & 1;
    gl_Position = vec4(vec2(corner) * 2.0 - 1.0, 0.0, 1.0);
}
";
pub(super) const VERTICES: i32 = 6;

const HEAD: &str = "#version 300 es
precision highp float;
precision highp int;
uniform highp sampler2D plane0;
uniform highp sampler2D plane1;
uniform highp sampler2D plane2;
uniform vec3 map_x;
uniform vec3 map_y;
uniform ivec4 bounds;
uniform mat3 matrix;
uniform vec3 offset;
uniform float opacity;
out vec4 made;
";

/// `whole`: column and row of the pixel whose middle is at `at`; before the first, some number below zero. From 2^23 on
/// the last bit of a float counts one, so the sum has the number in its last bits, and everything on the way there can be
/// expressed, however it is put together. GPUs convert floats more slowly than they add; and what a conversion makes of
/// those too large Mesa pins down, which its renderer for the CPU then looks at for one pixel after the other: a quarter
/// of all that it did for a picture.
const WHOLE: &str = "ivec2 whole(vec2 at) {
    return floatBitsToInt(at + 8388607.5) - 0x4B000000;
}
";

const SAME: &str = "vec4 source(vec2 at) {
    return texel(whole(at));
}
";

/// Chroma of a picture with an odd side is the mean of a block that ends behind it.
const SAME_OR_LAST: &str = "vec4 source(vec2 at) {
    return texel(min(whole(at), bounds.zw));
}
";

const MAPPED: &str = "vec2 mapped(vec2 at) {
    vec3 whole = vec3(at, 1.0);
    return vec2(dot(map_x, whole), dot(map_y, whole));
}
";

const NEAREST: &str = "vec4 source(vec2 at) {
    return texel(clamp(whole(floor(mapped(at)) + 0.5), bounds.xy, bounds.zw));
}
";

const BILINEAR: &str = "vec4 source(vec2 at) {
    vec2 corner = mapped(at) - 0.5;
    vec2 part = fract(corner);
    ivec2 first = whole(floor(corner) + 0.5);
    ivec2 low = clamp(first, bounds.xy, bounds.zw);
    ivec2 high = clamp(first + 1, bounds.xy, bounds.zw);
    vec4 above = mix(texel(low), texel(ivec2(high.x, low.y)), part.x);
    vec4 below = mix(texel(ivec2(low.x, high.y)), texel(high), part.x);
    return mix(above, below, part.y);
}
";

/// `made_of`: three code values of the target.
const ANY: &str = "vec3 made_of(vec3 raw) {
    return matrix * raw + offset;
}
";

const RGB_OF_RGB: &str = "vec3 made_of(vec3 raw) {
    return raw;
}
";

/// Luma counts the same for all three, U not for red, V not for blue: half of the matrix's products.
const RGB_OF_YUV: &str = "vec3 made_of(vec3 raw) {
    float u = raw.y, v = raw.z;
    vec3 chroma = vec3(v * matrix[2].r, u * matrix[1].g + v * matrix[2].g, u * matrix[1].b);
    return raw.x * matrix[0].r + (chroma + offset);
}
";

/// Which pixels of the source a pixel is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sampler {
    /// The one at the same place: pictures are as large, and neither cut, moved nor turned.
    Same,
    Nearest,
    Bilinear,
}

const SWIZZLE: [char; 4] = ['r', 'g', 'b', 'a'];

/// `texel`: code values and alpha of a pixel of the source.
fn texel(shape: Shape) -> String {
    let body = match shape {
        Shape::Rgb { bytes: 3, offsets: [r, g, b], .. } => format!(
            "int x = p.x * 3;
    return vec4(texelFetch(plane0, ivec2(x + {r}, p.y), 0).r, texelFetch(plane0, ivec2(x + {g}, p.y), 0).r,
        texelFetch(plane0, ivec2(x + {b}, p.y), 0).r, 1.0);"
        ),
        Shape::Rgb { .. } | Shape::Rgb565 | Shape::Bayer { .. } => "return texelFetch(plane0, p, 0);".to_owned(),
        Shape::Packed422 { y, u, v } => format!(
            "vec4 bytes = texelFetch(plane0, ivec2(p.x >> 1, p.y), 0).bgra;
    return vec4((p.x & 1) == 0 ? bytes[{y}] : bytes[{}], bytes[{u}], bytes[{v}], 1.0);",
            y + 2
        ),
        Shape::SemiPlanar { vsub, u, v } => format!(
            "vec4 chroma = texelFetch(plane1, ivec2(p.x >> 1, p.y / {vsub}), 0);
    return vec4(texelFetch(plane0, p, 0).r, chroma.{}, chroma.{}, 1.0);",
            SWIZZLE[u], SWIZZLE[v]
        ),
        Shape::Planar { hsub, vsub, u, v } => format!(
            "ivec2 c = ivec2(p.x / {hsub}, p.y / {vsub});
    return vec4(texelFetch(plane0, p, 0).r, texelFetch(plane{u}, c, 0).r, texelFetch(plane{v}, c, 0).r, 1.0);"
        ),
        Shape::Gray => "return vec4(texelFetch(plane0, p, 0).r, vec2(128.0 / 255.0), 1.0);".to_owned(),
    };
    format!("vec4 texel(ivec2 p) {{\n    {body}\n}}\n")
}

/// `pixel`: code values and alpha, as they are written.
fn pixel(from: Shape, to: Shape, opaque: bool) -> String {
    let made_of = match (is_yuv(from), is_yuv(to)) {
        (false, false) => RGB_OF_RGB,
        (true, false) => RGB_OF_YUV,
        _ => ANY,
    };
    // Values are limited where they are written. Those that go into a mean, or count in part, are before that.
    let made = match (opaque, is_yuv(to)) {
        (true, false) => "vec4(made_of(raw.rgb), raw.a)",
        (true, true) => "vec4(clamp(made_of(raw.rgb), 0.0, 1.0), raw.a)",
        (false, _) => "vec4(clamp(made_of(raw.rgb), 0.0, 1.0), raw.a) * opacity",
    };
    format!("{made_of}vec4 pixel(vec2 at) {{\n    vec4 raw = source(at);\n    return {made};\n}}\n")
}

/// The mean of the pixels of one block of chroma.
fn mean(hsub: usize, vsub: usize) -> String {
    let mut sum = String::new();
    for (y, x) in (0..vsub).flat_map(|y| (0..hsub).map(move |x| (y, x))) {
        let plus = if sum.is_empty() { "" } else { " + " };
        let _ = write!(sum, "{plus}pixel(first + vec2({x}.5, {y}.5)).gb");
    }
    format!(
        "vec2 first = (gl_FragCoord.xy - 0.5) * vec2({hsub}.0, {vsub}.0);\n    vec2 chroma = ({sum}) / {}.0;\n",
        hsub * vsub
    )
}

/// `main`: plane `plane` of the target.
fn main(shape: Shape, plane: usize) -> String {
    let body = match (shape, plane) {
        (Shape::Rgb { bytes: 3, offsets, .. }, _) => {
            let [r, g, _] = offsets;
            format!(
                "int x = whole(gl_FragCoord.xy).x;
    vec4 all = pixel(vec2(float(x / 3) + 0.5, gl_FragCoord.y));
    int at = x % 3;
    made = vec4(at == {r} ? all.r : at == {g} ? all.g : all.b, 0.0, 0.0, 1.0);
"
            )
        }
        // Some drivers (llvmpipe) cut bits off where they should round; of a value that can be expressed nothing is
        // cut.
        (Shape::Rgb565, _) => "vec4 all = pixel(gl_FragCoord.xy);
    vec3 most = vec3(31.0, 63.0, 31.0);
    made = vec4(floor(all.rgb * most + 0.5) / most, all.a);
"
        .to_owned(),
        (Shape::Rgb { .. } | Shape::Bayer { .. }, _) => "made = pixel(gl_FragCoord.xy);\n".to_owned(),
        (Shape::Packed422 { y, u, v }, _) => format!(
            "{}    vec4 bytes;
    bytes[{y}] = pixel(first + 0.5).r;
    bytes[{}] = pixel(first + vec2(1.5, 0.5)).r;
    bytes[{u}] = chroma.x;
    bytes[{v}] = chroma.y;
    made = bytes.bgra;\n",
            mean(2, 1),
            y + 2
        ),
        (_, 0) => "made = vec4(pixel(gl_FragCoord.xy).r, 0.0, 0.0, 1.0);\n".to_owned(),
        (Shape::SemiPlanar { vsub, u, .. }, _) => {
            let order = if u == 0 { "xy" } else { "yx" };
            format!("{}    made = vec4(chroma.{order}, 0.0, 1.0);\n", mean(2, vsub))
        }
        (Shape::Planar { hsub, vsub, u, .. }, p) => {
            let one = if p == u { "x" } else { "y" };
            format!("{}    made = vec4(chroma.{one}, 0.0, 0.0, 1.0);\n", mean(hsub, vsub))
        }
        (Shape::Gray, _) => String::new(),
    };
    format!("void main() {{\n    {body}}}\n")
}

/// The fragment shader that makes plane `plane` of a picture of shape `to` out of one of shape `from`, which hides what is
/// below it if it is `opaque`.
pub(super) fn fragment(from: Shape, to: Shape, plane: usize, sampler: Sampler, opaque: bool) -> String {
    let sampling = match sampler {
        Sampler::Same if is_yuv(to) => SAME_OR_LAST.to_owned(),
        Sampler::Same => SAME.to_owned(),
        Sampler::Nearest => [MAPPED, NEAREST].concat(),
        Sampler::Bilinear => [MAPPED, BILINEAR].concat(),
    };
    [HEAD, WHOLE, &texel(from), &sampling, &pixel(from, to, opaque), &main(to, plane)].concat()
}
