#!/usr/bin/env bash
# Makes node/assets/testcard.flv, the picture and tone that `tidewater dev --demo` pushes to live/demo.
#
# The loop is 16 s long because that is a whole number of both kinds of frames: 480 pictures at
# 30 fps and 750 AAC frames of 1024 samples at 48 kHz. Everything drawn and heard repeats after 16 s,
# and the sound is cut from the middle of three rounds, so that the decoder's overlap across the
# seam is the same as inside: a player cannot tell where the loop ends.
#
# (Matroska in between, because ADTS loses the AudioSpecificConfig that FLV puts first.)
#
# Needs ffmpeg with libx264 and drawtext (Debian's has both). Run it only to change the card; the
# result is committed.
set -euo pipefail

cd "$(dirname "$0")/.."
out=node/assets/testcard.flv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

font=$(fc-match -f '%{file}' 'DejaVu Sans:bold')
mono=$(fc-match -f '%{file}' 'DejaVu Sans Mono:bold')
seconds=16

# The still parts, drawn once: a deep-water gradient, the dial with one mark per second, colour bars.
ffmpeg -v error -y -f lavfi -i "color=black:s=1280x720,format=rgb24,geq=\
r='if(gte(Y,600), 191*mod(floor(X/160)\,2)+20\, if(between(hypot(X-960,Y-320),224,230), 120\, \
if(between(hypot(X-960,Y-320),188,222)*lt(abs(mod(atan2(Y-320,X-960)+PI+PI/16\,PI/8)-PI/16)*205\,3), 235\, \
if(lt(hypot(X-960,Y-320),224), 6\, 8+Y/60))))':\
g='if(gte(Y,600), 191*mod(floor(X/320)\,2)+20\, if(between(hypot(X-960,Y-320),224,230), 190\, \
if(between(hypot(X-960,Y-320),188,222)*lt(abs(mod(atan2(Y-320,X-960)+PI+PI/16\,PI/8)-PI/16)*205\,3), 245\, \
if(lt(hypot(X-960,Y-320),224), 26\, 34+Y/14))))':\
b='if(gte(Y,600), 191*mod(floor(X/640)\,2)+20\, if(between(hypot(X-960,Y-320),224,230), 200\, \
if(between(hypot(X-960,Y-320),188,222)*lt(abs(mod(atan2(Y-320,X-960)+PI+PI/16\,PI/8)-PI/16)*205\,3), 250\, \
if(lt(hypot(X-960,Y-320),224), 42\, 62+Y/9))))'" -frames:v 1 "$work/card.png"

# The hand at 00, on a transparent square that turns around its middle.
ffmpeg -v error -y -f lavfi -i "color=black:s=480x480,format=rgba,geq=r=255:g=179:b=71:\
a='255*gt(lt(abs(X-240)\,5)*between(Y\,44\,262)+lt(hypot(X-240\,Y-240)\,15)\,0)'" \
  -frames:v 1 "$work/hand.png"

# One turn of the hand per loop; the square lights up for the first 100 ms of every second, when the
# beep sounds, so that eye and ear can compare.
ffmpeg -v error -y -loop 1 -framerate 30 -t "$seconds" -i "$work/card.png" \
  -loop 1 -framerate 30 -t "$seconds" -i "$work/hand.png" \
  -filter_complex "[1]rotate=a=2*PI*t/${seconds}:c=black@0:bilinear=1[hand];\
[0][hand]overlay=x=720:y=80:shortest=1,\
drawbox=x=110:y=430:w=90:h=90:color=white:t=fill:enable='lt(mod(t,1),0.099)',\
drawbox=x=110:y=430:w=90:h=90:color=white:t=3,\
drawtext=fontfile=${font}:text=tidewater:fontsize=84:fontcolor=white:x=106:y=110,\
drawtext=fontfile=${font}:text='test card':fontsize=40:fontcolor=0x8FD3E8:x=112:y=212,\
drawtext=fontfile=${mono}:text='%{eif\:mod(t,${seconds})\:d\:2}':fontsize=150:fontcolor=white:x=106:y=270,\
drawtext=fontfile=${mono}:text='frame %{eif\:mod(n,30)\:d\:2}':fontsize=40:fontcolor=0x8FD3E8:x=230:y=456,\
format=yuv420p[v]" -map "[v]" \
  -c:v libx264 -profile:v main -preset veryslow -crf 27 -maxrate 700k -bufsize 700k \
  -bf 0 -g 30 -keyint_min 30 -sc_threshold 0 -threads 1 -r 30 "$work/video.mp4"

# A quiet low tone, and a beep at every full second (higher at 00). Whole numbers of hertz and smooth
# edges make the signal repeat exactly after 16 s.
ffmpeg -v error -y -f lavfi -i "aevalsrc=exprs='0.03*sin(2*PI*220*t)+0.25*sin(2*PI*if(lt(mod(t,${seconds}),1),1320,880)*t)*lt(mod(t,1),0.1)*pow(sin(PI*min(mod(t,1),0.1)/0.1),2)':s=48000:d=$((seconds * 3)):c=mono" \
  -c:a aac -b:a 64k "$work/tone.m4a"
ffmpeg -v error -y -i "$work/tone.m4a" -ss "$seconds" -t "$seconds" -c copy "$work/round.mka"

ffmpeg -v error -y -i "$work/video.mp4" -i "$work/round.mka" -map 0:v -map 1:a -c copy \
  -flags +bitexact -fflags +bitexact -flvflags no_duration_filesize "$out"

ls -l "$out"
ffprobe -v error -count_packets -show_entries stream=codec_name,nb_read_packets -of csv=p=0 "$out"
