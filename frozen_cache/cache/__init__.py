"""The cache of a frozen detector's outputs. This docstring specifies its format, version 2.

A cache `NAME.zarr` is a directory, a zarr v3 group readable with `zarr.open_group`, and a ledger of its files:

    NAME.zarr/
        zarr.json               root group: all that the cache was made from (`attributes.CacheAttributes`)
        segments/zarr.json      an empty group
        segments/NNNNN.TOKEN/   a group per segment, NNNNN = 00000, 00001 ...; TOKEN is its writer's own
        ledger/NNNNN.json       one line per committed segment; its `folder` says which folder counts
        stem/weights.safetensors
                                only with recomputed C1: the weights of the detector's stem
        staging/NNNNN.TOKEN/    a segment in the making; to be ignored
        .lock                   byte n is locked (POSIX record lock) by the process that writes segment n

A segment exists if and only if its line in the ledger does. It is written under `staging`, flushed to disk, renamed
to `segments`; then its line is written aside, flushed, and linked (or created exclusively) into the ledger: the first
line wins, whoever comes later throws his folder away. Locks only save work. Folders that no line names are to be
ignored. Nothing committed is ever written again; `cache repair` replaces a line once what it names then is whole.
In the first caches the folder is `segments/NNNNN`, and the line has no `folder`, no `image_crcs`, no `sums`.

Root attributes
    format, format_version  "frozen-cache", 2; 1 is read too. Readers refuse any other.
    detector                `DetectorSpec`: input rule, strides, channels, kept `encoder_layers`, sha256 of the weights.
    detector_fingerprint    sha256 of the spec without its name.
    label_to_category       detector label -> category id of the data set.
    data                    fingerprint (sha256 over categories, annotations as used, image names and sizes), categories
                            ({"id", "name"} by rising id), number of images, ids of missing ones, limit. Only where
                            objects lack masks: `points`, the most that one of these has.
    views, view_seed        views per image; they are drawn from (seed, image id, view index).
    top_k                   K, the (query, label) pairs kept.
    precision               float16, float32, int8 or coded, of `c1` and `encoder`.
    step                    only with coded: what an integer is worth, in standard deviations of its channel.
    packing                 only with coded, of steps from 0.5 on: nibbles, see `encoder/LAYER`.
    c1                      only where C1 is not stored: recomputed, or none.
    stem                    only with recomputed: `StemRecord`, the stem's configuration in plain values (kind, sizes,
                            stages that give C1 and levels of the encoder), sha256 and bytes of its weights.
    autocast, batch_size    how the detector was run.
    views_total, views_per_segment
                            the complete cache has ceil(views_total / views_per_segment) segments. Views are ordered by
                            (resized height, resized width, image id, view index) and dealt out in this order; with a
                            stem images are, by the size of their first view, each with all its views.
    segment_views           only of updated caches: views of each segment. Which views each has is in the ledger alone.
    fingerprint             sha256 of the other attributes as JSON (sorted keys, no spaces).

Arrays of a segment with V views (those of broken images are left out), R rows, G objects
    views       (V, 12) int64: image_id, view, original_height, original_width, crop_x0, crop_y0, crop_x1, crop_y1,
                flip, resized_height, resized_width, selected. `data.view.ViewTransform` explains them; `selected` is K.
    offsets     (V + 1, 5) int64, cumulative, first row 0: rows, objects, rle, c1, encoder. View i has the elements
                offsets[i] to offsets[i + 1] of `rows`; of `truth/objects` and `truth/boxes`; of `truth/rle`; of `c1`;
                and of each `encoder/LAYER`.
    shapes      (V, M, 3) int64: channels, height, width of C1 (where it is stored), then of each stored encoder level.
    scales      (V, S) float32, only with int8 and coded: one number for each channel of C1, then of each level of each
                kept encoder layer, in their order; value = int8 * scale.
    shifts      (V, S) float32, only with coded, in the same order; value = int8 * scale + shift.
    rows        (R, 6 + D) float32: box as cx, cy, w, h in 0..1 of the view; score; label (index into the categories);
                the query's D numbers. The first `selected` rows are the detections by falling score; those behind are
                queries that were matched to an object but not selected: for training only. (`cache relabel`
                keeps them, so that some may have no object there.)
    c1          flat, C-order (channels, height, width) of each view; absent where the detector has no C1, or c1 is not
                stored.
    encoder/LAYER
                flat, the levels of each view one after the other, finest first, each (channels, height, width); without
                those that the stem makes (`levels` of its configuration).
                With `packing` "nibbles" the n integers of each view in `c1`, and in each `encoder/LAYER`, are packed:
                of integer + 8 (modulo 256) first the lower four bits of each pair in a byte, the first of the pair in
                the lower half; then the upper four bits of each pair; then an odd last integer as it is: n bytes.
    images      uint8, only with a stem: the bytes of the image files, each image's once, in the order of first views.
    image_spans (V, 2) int64, only with a stem: start and end in `images` of each view's image file.
    truth/objects
                (G, 5) int64: annotation_id, category (index), crowd (0 or 1), match (row of the view, -1 for none),
                rle_bytes.
    truth/boxes (G, 5) float32: x0, y0, x1, y1 and area, in pixels of the view's crop frame (original resolution, after
                crop and flip). Plain views keep the annotation's own box and area, others have the cropped mask's.
    truth/supervision
                (G, 1 + 3 P) float32, only with `points` in `data`: what is known of an object: 0 its mask, 1 points, 2
                its box alone; then P times x, y (pixels of the crop frame) and 1 inside, 0 outside, -1 no point. The
                RLE of an object without a mask is its filled box.
    truth/rle   uint8: the counts of COCO's compressed RLE, `rle_bytes` each, one object after the other; the size of
                the masks is that of the crop.
    A segment whose images were all broken has `views`, `offsets` and `shapes` only. The group's attribute `broken`
    lists {"image_id", "reason"}; `chunk_sums` (not in the first caches) has for each shard, by its path, base64 of
    (end in bytes, CRC-32C) as two uint32 for each chunk by rising end, and for the index.

Codecs: little-endian bytes and crc32c, on every chunk; coded `c1` and `encoder` have zstd (level 1) between them. All
but `views`, `offsets`, `shapes`, `scales`, `shifts` and `image_spans` are sharded (`sharding_indexed`, index at the end
with crc32c). No chunk is left out, not even one of zeros. Chunks are at most 512 KiB before they are compressed, cut so
that views of equal size share none where a divisor allows it.

A line of the ledger is {"sha256": ..., "record": `ledger.SegmentRecord`}: sha256 of the record as JSON (sorted keys, no
spaces); the record has the cache's fingerprint, image ids and views, matched objects, sizes and shapes, broken images,
CRC-32C of the image files (`image_crcs`), sums of their sizes and annotations (`annotation_sums`, not in format 1; by
`data.fingerprint.annotation_sum`), with a stem the bytes of each view's image file (`image_bytes`), and `files`: path
inside the segment -> [size in bytes, checksum], by `sums` a CRC-32 or (first caches) a CRC-32C, which is the same for
all zarr files of one structure, as they end in their own.

With a stem, C1 and the levels that it makes are those of the view's image: decoded as `data.images` does, cut, flipped
and resized as `views` says and by the input rule, at the scale that the stem's configuration names, then put through
the stem, whose weights must have the sha256 of the root attributes.

A reader must compare the files' sizes with the ledger before it trusts zarr, which reads a missing or empty shard as
zeros; chunk contents are guarded by their crc32c, by `chunk_sums` against sound chunks of another place, tables and
`zarr.json` files by the ledger's checksum. Which files there must be, with which shapes and codecs, follows from the
record and `offsets` alone (`contents`), and is compared; so does their size, within bounds where they are compressed.
"""
