"""The kernel of `planar`: sums of a few outputs of as many planes as a vector has lanes, piece by piece."""

from __future__ import annotations

from typing import NamedTuple

from ..aligned import LINE_BYTES
from ..method import Array
from .segments import flush, segment_end
from .simd.copies import transpose_finish
from .simd.fields import record
from .simd.ir import address_of, ask_to_write, vector_lanes
from .simd.outputs import call_outputs, gather_lanes
from .simd.shares import Share, njit, portion

# A bias for each column of the sums, as the length of a tuple.
PER_COLUMN = (0,)


class Launch(NamedTuple):
    """The integers of a launch; spatial axes are padded to three on the left.

    inputs: channels of each group. Of a task, so many output channels of each group, slices (output planes of all
    images) and rows; of a piece, so many rows and columns of the kernel; of the largest tile, so many channels, rows
    and columns of the output. planes: whether lanes are output planes, not groups. before and width: columns of padding
    before the input's, and the input's. single: one segment has all taps. tiles: by address, those of whole and of the
    last channels, each of whole and of the last rows, each of whole and of the last columns.
    """

    groups: int
    inputs: int
    channels: int
    slices: int
    rows: int
    kernel_rows: int
    kernel_columns: int
    planes: int
    tile_channels: int
    tile_rows: int
    tile_columns: int
    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    before: int
    width: int
    period: int
    segment: int
    single: int
    relu: int
    padding: float
    tiles: Array


class Positions(NamedTuple):
    """The input's position, or -1, of each padded position on each axis."""

    depth: Array
    height: Array
    width: Array


class Task(NamedTuple):
    """What a task computes: in so many lanes, groups or output planes, so many output channels, slices and rows of
    each, from a first one on. apart: bytes of the input from lane to lane.
    """

    group: int
    lanes: int
    apart: int
    channel: int
    channels: int
    slice: int
    slices: int
    row: int
    rows: int


class Piece(NamedTuple):
    """Some rows and columns of plane (ci, kd) of the kernel, from (kh, kw) on. fresh: whether sums start with them;
    last: whether none follow.
    """

    ci: int
    kd: int
    kh: int
    rows: int
    kw: int
    columns: int
    fresh: int
    last: int


@njit(parallel=True)
def correlate(share: Share, places: Array, bias: Array, out: Array, scratch: Array, integers: Array) -> None:
    """The tasks of one share: out (n, groups*co, od, oh, ow), scratch (shares, ...).

    places: the address of the input, the bytes from one image, group, channel, plane, row and column to the next, and
    those of the kernel, by groups, output channels, channels and on.
    """
    launch, positions = record(Launch, integers, 0), record(Positions, integers, 1)
    lanes, channels, slices = vector_lanes(bias), out.shape[1] // launch.groups, out.shape[0] * out.shape[2]
    # Lanes are a group's output planes, of which there are blocks for each image and group, or groups.
    depth_blocks = -(-out.shape[2] // lanes)
    blocks = out.shape[0] * launch.groups * depth_blocks if launch.planes else -(-launch.groups // lanes)
    row_parts, slice_parts = -(-out.shape[3] // launch.rows), 1 if launch.planes else -(-slices // launch.slices)
    channel_parts = -(-channels // launch.channels)
    first, end = portion(blocks * channel_parts * slice_parts * row_parts, share)
    for number in range(first, end):
        rest, row_part = divmod(number, row_parts)
        rest, slice_part = divmod(rest, slice_parts)
        block, channel_part = divmod(rest, channel_parts)
        channel, row = channel_part * launch.channels, row_part * launch.rows
        if launch.planes:
            image, depth_block = divmod(block, depth_blocks)
            n, group = divmod(image, launch.groups)
            od = depth_block * lanes
            used, apart = min(lanes, out.shape[2] - od), launch.stride_d * places[4]
            slice_, count = n * out.shape[2] + od, 1
        else:
            group = block * lanes
            used, apart = min(lanes, launch.groups - group), places[2]
            slice_ = slice_part * launch.slices
            count = min(launch.slices, slices - slice_)
        task = Task(
            group,
            used,
            apart,
            channel,
            min(launch.channels, channels - channel),
            slice_,
            count,
            row,
            min(launch.rows, out.shape[3] - row),
        )
        size = task.channels * task.slices * task.rows * out.shape[4] * lanes
        own = scratch[share.number]
        sums = own[:size]
        totals = sums if launch.single else own[size : 2 * size]
        panels = own[size if launch.single else 2 * size :]
        if not launch.single:
            totals[:] = 0
        add_up(out, sums, totals, panels, places, task, positions, launch)
        write(out, totals, panels, bias, task, launch)


@njit()
def add_up(
    out: Array,
    sums: Array,
    totals: Array,
    panels: Array,
    places: Array,
    task: Task,
    positions: Positions,
    launch: Launch,
) -> None:
    """The totals of a task, piece by piece of the kernel."""
    taps, planes, fresh = launch.kernel_h * launch.kernel_w, launch.inputs * launch.kernel_d, 1
    for plane in range(planes):
        ci, kd = divmod(plane, launch.kernel_d)
        kh = 0
        while kh < launch.kernel_h:
            tap = plane * taps + kh * launch.kernel_w
            # Segments end with rows.
            left = (segment_end(tap, launch) - tap) // launch.kernel_w
            rows = min(launch.kernel_rows, launch.kernel_h - kh, left)
            for kw in range(0, launch.kernel_w, launch.kernel_columns):
                columns = min(launch.kernel_columns, launch.kernel_w - kw)
                last = int(plane + 1 == planes and kh + rows == launch.kernel_h and kw + columns == launch.kernel_w)
                piece = Piece(ci, kd, kh, rows, kw, columns, fresh, last)
                add_piece(out, sums, panels, places, piece, task, positions, launch)
                fresh = 0
            kh += rows
            if rows == left and not launch.single:
                flush(sums, totals)
                fresh = 1
    if not launch.single and not fresh:
        flush(sums, totals)


@njit()
def add_piece(
    out: Array,
    sums: Array,
    panels: Array,
    places: Array,
    piece: Piece,
    task: Task,
    positions: Positions,
    launch: Launch,
) -> None:
    """Add to a task's sums the products with a piece of the kernel."""
    ci, kd, kh, rows, kw, columns, fresh, last_piece = piece
    out_d, out_w = out.shape[2], out.shape[4]
    lanes, itemsize = vector_lanes(sums), sums.itemsize
    kernel = places[7] + task.group * places[8] + ci * places[10] + kd * places[11] + kh * places[12] + kw * places[13]
    kernel += task.channel * places[9]
    if launch.planes:
        panel, apart, kernel_pitch, kernel_step = panels, places[9], places[12] // itemsize, places[13] // itemsize
    else:
        size = rows * columns * lanes
        for c in range(task.channels):
            start = kernel + c * places[9]
            gather(panels[c * size :], start, places[8], places[12], places[13], task.lanes, rows, columns)
        kernel, apart, kernel_pitch, kernel_step = address_of(panels), size * itemsize, columns * lanes, lanes
        panel = panels[task.channels * size :]
    top, left = kh * launch.dilation_h + task.row * launch.stride_h, kw * launch.dilation_w
    height = (rows - 1) * launch.dilation_h + (task.rows - 1) * launch.stride_h + 1
    width = (columns - 1) * launch.dilation_w + (out_w - 1) * launch.stride_w + 1
    pitch, per_row = width * lanes, out_w * lanes
    for s in range(task.slices):
        n, od = divmod(task.slice + s, out_d)
        first_out, from_channel, from_lane = place_of(out, n, od, task, launch)
        d = positions.depth[od * launch.stride_d + kd * launch.dilation_d]
        plane = places[0] + n * places[1] + task.group * places[2] + ci * places[3] + d * places[4]
        for row in range(height):
            h = positions.height[top + row] if d >= 0 else -1
            fill_row(panel[row * pitch :], plane + h * places[5], h < 0, left, width, places, task, positions, launch)
        for c in range(0, task.channels, launch.tile_channels):
            for channel in range(c, min(c + launch.tile_channels, task.channels) if last_piece else c):
                # Where sums go no hardware looks ahead; the lines arrive while the sums are made.
                for element in range(0, task.lanes * from_lane, max(from_lane, LINE_BYTES // itemsize)):
                    ask_to_write(out, first_out + channel * from_channel + element)
            own = sums[(s * task.channels + c) * task.rows * per_row :]
            last_channel = 4 if c + launch.tile_channels > task.channels else 0
            for row in range(0, task.rows, launch.tile_rows):
                last_row = 2 if row + launch.tile_rows > task.rows else 0
                for ow in range(0, out_w, launch.tile_columns):
                    last = 1 if ow + launch.tile_columns > out_w else 0
                    call_outputs(
                        launch.tiles[last_channel + last_row + last],
                        panel[row * launch.stride_h * pitch + ow * launch.stride_w * lanes :],
                        kernel + c * apart,
                        own[row * per_row + ow * lanes :],
                        task.rows * per_row,
                        per_row,
                        launch.dilation_h * pitch,
                        launch.dilation_w * lanes,
                        launch.stride_h * pitch,
                        launch.stride_w * lanes,
                        rows,
                        columns,
                        apart // itemsize,
                        kernel_pitch,
                        kernel_step,
                        fresh,
                    )


@njit()
def gather(
    target: Array,
    address: int,
    lane_pitch: int,
    row_pitch: int,
    step: int,
    lanes: int,
    rows: int,
    columns: int,
) -> None:
    """Rows of so many columns, one behind the other, which are one where they lie so."""
    if row_pitch == columns * step:
        rows, columns = 1, rows * columns
    for row in range(rows):
        place = target[row * columns * vector_lanes(target) :]
        gather_lanes(place, address + row * row_pitch, lane_pitch, step, lanes, columns)


@njit()
def fill_row(
    target: Array,
    address: int,
    padding: bool,
    left: int,
    width: int,
    places: Array,
    task: Task,
    positions: Positions,
    launch: Launch,
) -> None:
    """So many padded columns, from column `left` on, of an input row that lies at an address or is all padding."""
    lanes = vector_lanes(target)
    if padding:
        target[: width * lanes] = launch.padding
        return
    low = min(max(launch.before - left, 0), width)
    high = max(min(launch.before + launch.width - left, width), low)
    # In ascending order: what is gathered may overwrite a little of what follows it.
    pad_row(target, address, 0, low, left, places, task, positions, launch)
    if low < high:
        start = address + (left + low - launch.before) * places[6]
        gather_lanes(target[low * lanes :], start, task.apart, places[6], task.lanes, high - low)
    pad_row(target, address, high, width, left, places, task, positions, launch)


@njit()
def pad_row(
    target: Array,
    address: int,
    first: int,
    end: int,
    left: int,
    places: Array,
    task: Task,
    positions: Positions,
    launch: Launch,
) -> None:
    """The columns of `fill_row` beside the input, by the table of input columns."""
    lanes = vector_lanes(target)
    for column in range(first, end):
        source = positions.width[left + column]
        if source < 0:
            target[column * lanes : (column + 1) * lanes] = launch.padding
        else:
            gather_lanes(target[column * lanes :], address + source * places[6], task.apart, places[6], task.lanes, 1)


@njit()
def place_of(out: Array, n: int, od: int, task: Task, launch: Launch) -> tuple[int, int, int]:
    """Where in out the sums of a task's slice begin, and how far apart are those of its output channels and lanes."""
    channels, plane = out.shape[1] // launch.groups, out.shape[3] * out.shape[4]
    channel, from_channel = task.group * channels + task.channel, out.shape[2] * plane
    first = (n * out.shape[1] + channel) * from_channel + od * plane + task.row * out.shape[4]
    return first, from_channel, plane if launch.planes else channels * from_channel


@njit()
def write(out: Array, totals: Array, shifts: Array, bias: Array, task: Task, launch: Launch) -> None:
    """The task's part of out, with bias and activation, from totals [slice, output channel, row, column, lane].

    shifts is room for a vector.
    """
    lanes, channels, apart = vector_lanes(totals), out.shape[1] // launch.groups, task.rows * out.shape[4]
    pixels = out.reshape(-1)  # at once: for each channel, it took a tenth of the time of many
    for s in range(task.slices):
        n, od = divmod(task.slice + s, out.shape[2])
        place, from_channel, from_lane = place_of(out, n, od, task, launch)
        for c in range(task.channels):
            channel = task.group * channels + task.channel + c
            if launch.planes:
                shifts[:lanes] = bias[channel]
            else:
                for lane in range(task.lanes):
                    shifts[lane] = bias[channel + lane * channels]
            own = totals[(s * task.channels + c) * apart * lanes :]
            for first in range(0, apart, lanes):
                count = min(lanes, apart - first)
                square, target = own[first * lanes :], pixels[place + c * from_channel + first :]
                transpose_finish(
                    PER_COLUMN, square, lanes, target, from_lane, count, task.lanes, shifts, launch.relu, 0
                )
