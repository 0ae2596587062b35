/* Runs the network on the golden pictures and compares every integer with the golden vectors. */

#include <stdio.h>
#include <stdlib.h>

#include "model.h"

static long compared, equal, tensors;

/* The bytes of picture `picture` in a file with `count` for each; free them. */
static uint8_t *read_file(const char *part, const char *kind, size_t count, size_t picture)
{
	char path[512];
	if (snprintf(path, sizeof path, "vectors/%s%s.bin", part, kind) >= (int)sizeof path) {
		fprintf(stderr, "error: the name of %s is too long\n", part);
		exit(2);
	}
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = malloc(count);
	if (file == NULL || bytes == NULL || fseek(file, (long)(count * picture), SEEK_SET) != 0 || fread(bytes, 1, count, file) != count) {
		fprintf(stderr, "error: %s cannot be read as far as picture %lu\nhint: run this in the exported folder; export the model again\n",
			path, (unsigned long)picture);
		exit(2);
	}
	fclose(file);
	return bytes;
}

static int32_t word(const uint8_t *bytes)
{
	const uint32_t u = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
	return u > INT32_MAX ? -(int32_t)~u - 1 : (int32_t)u;
}

static void compare(const char *part, const char *kind, size_t at, int32_t got, int32_t expected, int *told)
{
	compared++;
	equal += got == expected;
	if (got != expected && !(*told)++)
		fprintf(stderr, "%s%s: element %lu is %ld, expected %ld\n", part, kind, (unsigned long)at, (long)got, (long)expected);
}

/* Words of 32 bits against those of picture `picture`. */
static void compare_words(const char *part, const char *kind, const int32_t *got, size_t count, size_t picture)
{
	int told = 0;
	uint8_t *bytes = read_file(part, kind, 4 * count, picture);
	for (size_t i = 0; i < count; i++)
		compare(part, kind, picture * count + i, got[i], word(bytes + 4 * i), &told);
	free(bytes);
	tensors++;
}

/* The same of codes of 8 bits. */
static void compare_codes(const char *part, const char *kind, const int16_t *got, size_t count, size_t picture, int is_signed)
{
	int told = 0;
	uint8_t *bytes = read_file(part, kind, count, picture);
	for (size_t i = 0; i < count; i++) {
		const int32_t code = bytes[i];
		compare(part, kind, picture * count + i, got[i], is_signed && code > 127 ? code - 256 : code, &told);
	}
	free(bytes);
	tensors++;
}

int main(void)
{
	const cqat_network *net = &cqat_model;
	const cqat_memory *memory = &cqat_model_memory;
	const size_t pixels = (size_t)net->size * (size_t)net->size;
	static int32_t logits[CQAT_CLASSES];
	for (size_t p = 0; p < CQAT_PICTURES; p++) {
		uint8_t *picture = read_file("pictures", "", 3 * pixels, p);
		cqat_load(net, memory, picture);
		free(picture);
		compare_codes("input", "", memory->values, 3 * pixels, p, 1);
		for (int32_t k = 0; k < net->layer_count; k++) {
			const cqat_layer *layer = &net->layers[k];
			const size_t count = (size_t)layer->conv.out_height * (size_t)layer->conv.out_width * (size_t)layer->conv.out_channels;
			cqat_run_layer(net, memory, k);
			compare_words(layer->name, ".accumulators", memory->accumulators, count, p);
			if (layer->shortcut == CQAT_PROJECTION)
				compare_words(layer->name, ".projection", memory->projection, count, p);
			compare_codes(layer->name, ".codes", memory->values + net->offsets[k + 1], count, p, 0);
		}
		cqat_classify(net, memory, logits);
		compare_words("pooled", "", memory->pooled, (size_t)net->classifier.features, p);
		compare_words("classifier", "", memory->classifier, (size_t)net->classifier.classes, p);
		compare_words("logits", "", logits, (size_t)net->classifier.classes, p);
	}
	printf("%ld of %ld integers equal: %ld vectors of %d pictures\n", equal, compared, tensors, CQAT_PICTURES);
	return equal == compared && compared > 0 ? 0 : 1;
}
