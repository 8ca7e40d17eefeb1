#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <unordered_map>
#include <vector>
namespace {
struct order { std::string name; int amount; double price; };
template <typename T> T total(const std::vector<order> &v, std::function<T(const order &)> f)
{ return std::accumulate(v.begin(), v.end(), T(), [&](T sum, const order &o) { return sum + f(o); }); }
}
class shop {
public:
	void sell(const std::string &who, order o) { sold[who].push_back(std::move(o)); }
	void sort() { for (auto &s : sold) std::sort(s.second.begin(), s.second.end(), [](auto &a, auto &b) { return a.price * a.amount < b.price * b.amount || (a.price == b.price && a.name < b.name); }); }
	double sum() const { double all = 0; for (auto &s : sold) all += total<double>(s.second, [](const order &o) { return o.amount * o.price; }); return all; }
private:
	std::map<std::string, std::vector<order>> sold;
};
int main(int argc, char **argv)
{
	shop s;
	std::unordered_map<int, std::unique_ptr<std::string>> names;
	for (int i = 0; i < 1000 * argc; i++) {
		names[i] = std::make_unique<std::string>("name" + std::to_string(i));
		s.sell(*names[i * 7 % (i + 1)], {argv[0], i, 1.0 / (i + 1)});
	}
	s.sort();
	std::printf("%f\n", s.sum());
}
