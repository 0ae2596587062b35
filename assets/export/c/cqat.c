#include "cqat.h"

/* floor(x / 2^n): what >> of a negative number does, C leaves to the compiler. */
static int64_t floor_shift(int64_t x, int32_t n)
{
	return x >= 0 ? x >> n : ~(~x >> n);
}

static int64_t clamp(int64_t x, int64_t lo, int64_t hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

static int32_t words(int32_t count, int32_t bits)
{
	return (count * bits + 31) / 32;
}

/* What an accumulator of the network holds of a sum. */
static int32_t hold(const cqat_network *net, int32_t sum)
{
	const int64_t half = INT64_C(1) << (net->accumulator_bits - 1);
	if (net->saturates)
		return (int32_t)clamp(sum, -half, half - 1);
	return (int32_t)(sum - floor_shift(sum + half, net->accumulator_bits) * 2 * half);
}

static int64_t requantize(const cqat_requantize *k, int32_t acc, int32_t r)
{
	const int64_t sum = (int64_t)acc * k->multiplier + (int64_t)r * k->shortcut + k->bias;
	return floor_shift(sum + (INT64_C(1) << (k->shift - 1)), k->shift);
}

static int16_t window(const cqat_window *w, int64_t base)
{
	const int64_t half = w->round && w->shift > 0 ? INT64_C(1) << (w->shift - 1) : 0;
	return (int16_t)clamp(floor_shift(clamp(base, w->base_lo, w->base_hi) + half, w->shift), w->lo, w->hi);
}

void cqat_weights(const uint32_t *row, int32_t count, int32_t bits, int32_t odd, int16_t *weights)
{
	const uint32_t mask = (1u << bits) - 1, sign = 1u << (bits - 1);
	for (int32_t i = 0; i < count; i++) {
		const int32_t bit = i * bits, at = bit / 32, low = bit % 32;
		uint32_t code = row[at] >> low;
		if (low + bits > 32)
			code |= row[at + 1] << (32 - low);
		const int32_t value = (int32_t)((code & mask) ^ sign) - (int32_t)sign;
		weights[i] = (int16_t)(odd ? 2 * value + 1 : value);
	}
}

void cqat_load(const cqat_network *net, const cqat_memory *memory, const uint8_t *picture)
{
	const int32_t pixels = net->size * net->size;
	for (int32_t i = 0; i < pixels; i++)
		for (int32_t c = 0; c < 3; c++)
			memory->values[3 * i + c] = net->input_codes[c][picture[c * pixels + i]];
}

static void convolve(const cqat_network *net, const cqat_memory *memory, const cqat_conv *conv, int32_t *sums)
{
	const int32_t kernel = conv->kernel, channels = conv->in_channels, padding = kernel / 2;
	const int32_t count = channels * kernel * kernel;
	const int16_t *values = memory->values + net->offsets[conv->input];
	for (int32_t out = 0; out < conv->out_channels; out++) {
		cqat_weights(conv->weights + out * words(count, conv->bits), count, conv->bits, conv->odd, memory->row);
		for (int32_t y = 0; y < conv->out_height; y++)
			for (int32_t x = 0; x < conv->out_width; x++) {
				int32_t sum = 0;
				for (int32_t ky = 0; ky < kernel; ky++)
					for (int32_t kx = 0; kx < kernel; kx++) {
						const int32_t iy = y * conv->stride + ky - padding, ix = x * conv->stride + kx - padding;
						if (iy < 0 || iy >= conv->in_height || ix < 0 || ix >= conv->in_width)
							continue;
						const int16_t *pixel = values + (iy * conv->in_width + ix) * channels;
						const int16_t *weight = memory->row + ky * kernel + kx;
						for (int32_t c = 0; c < channels; c++)
							sum += (int32_t)weight[c * kernel * kernel] * pixel[c];
					}
				sums[(y * conv->out_width + x) * conv->out_channels + out] = hold(net, sum);
			}
	}
}

void cqat_run_layer(const cqat_network *net, const cqat_memory *memory, int32_t k)
{
	const cqat_layer *layer = &net->layers[k];
	const int32_t channels = layer->conv.out_channels;
	const int32_t count = layer->conv.out_height * layer->conv.out_width * channels;
	int16_t *codes = memory->values + net->offsets[k + 1];
	convolve(net, memory, &layer->conv, memory->accumulators);
	if (layer->shortcut == CQAT_PROJECTION)
		convolve(net, memory, &layer->projection, memory->projection);
	for (int32_t i = 0; i < count; i++) {
		int32_t r = 0;
		if (layer->shortcut == CQAT_IDENTITY)
			r = memory->values[net->offsets[layer->identity] + i];
		else if (layer->shortcut == CQAT_PROJECTION)
			r = memory->projection[i];
		codes[i] = window(&layer->window, requantize(&layer->channels[i % channels], memory->accumulators[i], r));
	}
}

void cqat_classify(const cqat_network *net, const cqat_memory *memory, int32_t *logits)
{
	const cqat_classifier *c = &net->classifier;
	const int16_t *values = memory->values + net->offsets[c->input];
	for (int32_t f = 0; f < c->features; f++) {
		memory->pooled[f] = 0;
		for (int32_t p = 0; p < c->pixels; p++)
			memory->pooled[f] += values[p * c->features + f];
	}
	for (int32_t k = 0; k < c->classes; k++) {
		int32_t sum = 0;
		cqat_weights(c->weights + k * words(c->features, c->bits), c->features, c->bits, c->odd, memory->row);
		for (int32_t f = 0; f < c->features; f++)
			sum += memory->row[f] * memory->pooled[f];
		memory->classifier[k] = hold(net, sum);
		logits[k] = (int32_t)clamp(requantize(&c->channels[k], memory->classifier[k], 0), INT32_MIN, INT32_MAX);
	}
}

int32_t cqat_run(const cqat_network *net, const cqat_memory *memory, const uint8_t *picture, int32_t *logits)
{
	int32_t best = 0;
	cqat_load(net, memory, picture);
	for (int32_t k = 0; k < net->layer_count; k++)
		cqat_run_layer(net, memory, k);
	cqat_classify(net, memory, logits);
	for (int32_t k = 1; k < net->classifier.classes; k++)
		if (logits[k] > logits[best])
			best = k;
	return best;
}
