/* One level of every vectorised kernel: included with LEVEL(name), TARGET and VECTOR defined, which it takes back. */
#include "residues.h"
#include "project.h"
#include "lanes.h"
#include "rows.h"
#include "attention.h"

static const struct wide_kernels LEVEL(wide) = {
    .share = LEVEL(share),
    .merge = LEVEL(merge),
    .centre = LEVEL(centre),
    .all_canonical = LEVEL(all_canonical),
    .field_dot = LEVEL(field_dot),
    .field_combine = LEVEL(field_combine),
    .field_project = LEVEL(field_project),
    .quantize_row = LEVEL(quantize_row),
    .norm_row = LEVEL(norm_row),
    .gate_row = LEVEL(gate_row),
    .softcap_row = LEVEL(softcap_row),
    .dequantize_row = LEVEL(dequantize_row),
    .rope_head = LEVEL(rope_head),
    .attend = LEVEL(attend),
    .read_sum = LEVEL(read_sum),
};

#undef LANES
#undef PIECE_FLOATS
#undef PIECES
#undef PIECE
#undef EACH_PIECE
#undef LEVEL
#undef TARGET
#undef VECTOR
