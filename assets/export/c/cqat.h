/* An integer network, as its golden vectors were made: C99, no memory of its own, nothing but <stdint.h>.
 *
 * Values are numbered: 0 is the picture, k + 1 the codes that layer k ends in. All lie as (height, width, channels).
 */
#ifndef CQAT_H
#define CQAT_H

#include <stdint.h>

/* A convolution with padding kernel / 2. */
typedef struct {
	const char *name;
	int32_t input; /* the value that it reads */
	int32_t kernel, stride;
	int32_t in_height, in_width, in_channels;
	int32_t out_height, out_width, out_channels;
	int32_t bits; /* of a weight code */
	int32_t odd; /* whether a weight is 2 c + 1 of the stored c */
	const uint32_t *weights; /* rows of an output channel, see cqat_weights */
} cqat_conv;

/* q = (acc multiplier + r shortcut + bias + 2^(shift - 1)) >> shift, r being what is added: codes, accumulators or 0. */
typedef struct {
	int32_t multiplier, shortcut;
	int64_t bias;
	int32_t shift;
} cqat_requantize;

/* clamp((clamp(q, base_lo, base_hi) + half) >> shift, lo, hi); half is 2^(shift - 1) where `round`, else 0. */
typedef struct {
	int32_t base_lo, base_hi, shift, round, lo, hi;
} cqat_window;

typedef enum { CQAT_NO_SHORTCUT, CQAT_IDENTITY, CQAT_PROJECTION } cqat_shortcut;

/* Convolution, shortcut, requantization: what ends in codes. */
typedef struct {
	const char *name;
	cqat_conv conv;
	cqat_shortcut shortcut;
	int32_t identity; /* the value whose codes are added, with CQAT_IDENTITY */
	cqat_conv projection; /* whose accumulators are added, with CQAT_PROJECTION */
	const cqat_requantize *channels;
	cqat_window window;
} cqat_layer;

/* Sum over the pixels, fully connected layer, logits in units of 2^-fraction_bits. */
typedef struct {
	const char *name;
	int32_t input, pixels, features, classes, bits, odd, fraction_bits;
	const uint32_t *weights;
	const cqat_requantize *channels;
} cqat_classifier;

typedef struct {
	int32_t size; /* height and width of a picture */
	const int8_t (*input_codes)[256]; /* code of a byte, per channel */
	int32_t accumulator_bits; /* 32, or fewer: sums wrap or saturate */
	int32_t saturates;
	int32_t layer_count;
	const cqat_layer *layers;
	cqat_classifier classifier;
	const int32_t *offsets; /* where value k begins in cqat_memory.values */
} cqat_network;

/* What a picture needs. model.c has one of the right sizes. */
typedef struct {
	int16_t *values; /* every value's codes */
	int32_t *accumulators; /* of the last layer */
	int32_t *projection; /* the accumulators of its projection, if it has one */
	int16_t *row; /* weights of one output channel */
	int32_t *pooled, *classifier; /* sums over the pixels, accumulators of the classifier */
} cqat_memory;

/* Bytes (3, size, size) to the codes of value 0. */
void cqat_load(const cqat_network *net, const cqat_memory *memory, const uint8_t *picture);

/* Layer k; the layers before it must have run. */
void cqat_run_layer(const cqat_network *net, const cqat_memory *memory, int32_t k);

/* Pool, classifier, logits, after the last layer. */
void cqat_classify(const cqat_network *net, const cqat_memory *memory, int32_t *logits);

/* All of it. Returns the class: of equal logits the first leads. */
int32_t cqat_run(const cqat_network *net, const cqat_memory *memory, const uint8_t *picture, int32_t *logits);

/* Unpacks a row of `count` weights. It begins at a word; codes of `bits` bits in two's complement follow each other in the order
 * (input channel, kernel row, kernel column), the first in the lowest bits of the first word, over the edges of words. */
void cqat_weights(const uint32_t *row, int32_t count, int32_t bits, int32_t odd, int16_t *weights);

#endif
