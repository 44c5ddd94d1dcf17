// Finds keypoints in an image with a file of `tiepoint export`, by OpenVINO's C++ API.
//
//     tiepoint export keypoints.onnx
//     keypoints keypoints.onnx photo.ppm > photo.txt
//
// Prints a line per keypoint, best first: x, y (px, (0, 0) is the centre of the top-left pixel),
// score and descriptor.

#include <cstdint>
#include <fstream>
#include <iostream>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>

// Reads a binary PGM or PPM file of 8 bits without comments as a tensor 1 C H W in 0..1.
ov::Tensor read_image(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    size_t width = 0, height = 0, white = 0;
    file >> magic >> width >> height >> white;
    file.get();  // the white space before the pixels
    const bool colour = magic == "P6";
    if (!file || (!colour && magic != "P5") || white != 255)
        throw std::runtime_error(path + ": not a binary PGM or PPM file of 8 bits");
    const size_t channels = colour ? 3 : 1, size = width * height;
    std::string bytes(channels * size, '\0');
    if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
        throw std::runtime_error(path + ": truncated");
    ov::Tensor image(ov::element::f32, {1, channels, height, width});
    float* pixels = image.data<float>();
    for (size_t i = 0; i < size; ++i)
        for (size_t c = 0; c < channels; ++c)
            pixels[c * size + i] = static_cast<uint8_t>(bytes[i * channels + c]) / 255.0f;
    return image;
}

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: keypoints MODEL.onnx IMAGE.ppm");
    const ov::Tensor image = read_image(argv[2]);
    ov::Core core;
    // In float32, as the file was compared with tiepoint: bfloat16 would move the positions.
    ov::CompiledModel model =
        core.compile_model(argv[1], "CPU", ov::hint::inference_precision(ov::element::f32));
    ov::InferRequest request = model.create_infer_request();
    request.set_tensor("image", image);
    request.infer();

    const float* xy = request.get_tensor("keypoints").data<float>();      // 1 K 2
    const float* scores = request.get_tensor("scores").data<float>();     // 1 K
    ov::Tensor descriptors = request.get_tensor("descriptors");           // 1 K D, unit length
    const int64_t count = request.get_tensor("count").data<int64_t>()[0];  // places in use, of K
    const size_t length = descriptors.get_shape()[2];
    std::cout.precision(9);
    for (int64_t i = 0; i < count; ++i) {
        std::cout << xy[2 * i] << ' ' << xy[2 * i + 1] << ' ' << scores[i];
        for (size_t d = 0; d < length; ++d)
            std::cout << ' ' << descriptors.data<float>()[i * length + d];
        std::cout << '\n';
    }
} catch (const std::exception& error) {
    std::cerr << "keypoints: " << error.what() << '\n';
    return 1;
}
