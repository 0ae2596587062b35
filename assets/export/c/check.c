/* Runs the network on the golden pictures and compares every integer with the golden vectors. */

#include <stdio.h>
#include <stdlib.h>

#include "model.h"

static long compared, equal, tensors;

/* The bytes of a file, `count` for each picture; all of them are kept until the end. */
static const uint8_t *read_file(const char *part, const char *kind, long count, long pictures)
{
	char path[512];
	if (snprintf(path, sizeof path, "vectors/%s%s.bin", part, kind) >= (int)sizeof path) {
		fprintf(stderr, "error: the name of %s is too long\n", part);
		exit(2);
	}
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = malloc((size_t)(count * pictures) + 1);
	if (file == NULL || bytes == NULL) {
		fprintf(stderr, "error: %s cannot be read\nhint: run this in the exported folder\n", path);
		exit(2);
	}
	const size_t size = fread(bytes, 1, (size_t)(count * pictures) + 1, file);
	fclose(file);
	if (size != (size_t)(count * pictures)) {
		fprintf(stderr, "error: %s has another size than %ld bytes\nhint: export the model again\n", path, count * pictures);
		exit(2);
	}
	return bytes;
}

static int32_t word(const uint8_t *bytes)
{
	const uint32_t u = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
	return u > INT32_MAX ? -(int32_t)~u - 1 : (int32_t)u;
}

static void compare(const char *part, const char *kind, long at, int32_t got, int32_t expected, int *told)
{
	compared++;
	equal += got == expected;
	if (got != expected && !(*told)++)
		fprintf(stderr, "%s%s: element %ld is %ld, expected %ld\n", part, kind, at, (long)got, (long)expected);
}

/* Words of 32 bits against those of picture `picture`. */
static void compare_words(const char *part, const char *kind, const int32_t *got, long count, long picture)
{
	int told = 0;
	const uint8_t *bytes = read_file(part, kind, 4 * count, CQAT_PICTURES);
	for (long i = 0; i < count; i++)
		compare(part, kind, picture * count + i, got[i], word(bytes + 4 * (picture * count + i)), &told);
	free((void *)bytes);
	tensors++;
}

/* The same of codes of 8 bits. */
static void compare_codes(const char *part, const char *kind, const int16_t *got, long count, long picture, int is_signed)
{
	int told = 0;
	const uint8_t *bytes = read_file(part, kind, count, CQAT_PICTURES);
	for (long i = 0; i < count; i++) {
		const int32_t code = bytes[picture * count + i];
		compare(part, kind, picture * count + i, got[i], is_signed && code > 127 ? code - 256 : code, &told);
	}
	free((void *)bytes);
	tensors++;
}

int main(void)
{
	const cqat_network *net = &cqat_model;
	const cqat_memory *memory = &cqat_model_memory;
	const long side = net->size, pixels = side * side;
	static int32_t logits[CQAT_CLASSES];
	const uint8_t *pictures = read_file("pictures", "", 3 * pixels, CQAT_PICTURES);
	for (long p = 0; p < CQAT_PICTURES; p++) {
		cqat_load(net, memory, pictures + p * 3 * pixels);
		compare_codes("input", "", memory->values, 3 * pixels, p, 1);
		for (int32_t k = 0; k < net->layer_count; k++) {
			const cqat_layer *layer = &net->layers[k];
			const long count = (long)layer->conv.out_height * layer->conv.out_width * layer->conv.out_channels;
			cqat_run_layer(net, memory, k);
			compare_words(layer->name, ".accumulators", memory->accumulators, count, p);
			if (layer->shortcut == CQAT_PROJECTION)
				compare_words(layer->name, ".projection", memory->projection, count, p);
			compare_codes(layer->name, ".codes", memory->values + net->offsets[k + 1], count, p, 0);
		}
		cqat_classify(net, memory, logits);
		compare_words("pooled", "", memory->pooled, net->classifier.features, p);
		compare_words("classifier", "", memory->classifier, net->classifier.classes, p);
		compare_words("logits", "", logits, net->classifier.classes, p);
	}
	free((void *)pictures);
	printf("%ld of %ld integers equal: %ld vectors of %d pictures\n", equal, compared, tensors, CQAT_PICTURES);
	return equal == compared && compared > 0 ? 0 : 1;
}
